#include "libcore/text/byte_map.h"

namespace ds {
namespace {

constexpr std::size_t kMapped = 0x100 + 68;  // code points below this may stand for a byte

constexpr bool stands_for_itself(unsigned byte) {
  return (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174;
}

constexpr std::array<std::uint16_t, 256> make_code_points() {
  std::array<std::uint16_t, 256> map{};
  std::uint16_t next = 0x100;
  for (unsigned byte = 0; byte < 256; ++byte) {
    map[byte] = stands_for_itself(byte) ? static_cast<std::uint16_t>(byte) : next++;
  }
  return map;
}
constexpr std::array<std::uint16_t, 256> kCodePoints = make_code_points();

constexpr std::array<std::int16_t, kMapped> make_bytes() {
  std::array<std::int16_t, kMapped> map{};
  for (std::int16_t& byte : map) byte = -1;
  for (std::size_t byte = 0; byte < 256; ++byte) {
    map[kCodePoints[byte]] = static_cast<std::int16_t>(byte);
  }
  return map;
}
constexpr std::array<std::int16_t, kMapped> kBytes = make_bytes();

}  // namespace

const std::array<std::uint16_t, 256>& byte_code_points() { return kCodePoints; }

void append_token_bytes(std::string_view text, std::string& bytes) {
  const std::size_t start = bytes.size();
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    std::size_t code_point = kMapped;
    std::size_t length = 1;
    if (lead < 0x80) {
      code_point = lead;
    } else if (lead < 0xe0 && i + 1 < text.size()) {
      code_point = (lead & 0x1fu) << 6 | (static_cast<unsigned char>(text[i + 1]) & 0x3fu);
      length = 2;
    }
    if (code_point >= kMapped || kBytes[code_point] < 0) {
      bytes.resize(start);
      bytes += text;
      return;
    }
    bytes += static_cast<char>(kBytes[code_point]);
    i += length;
  }
}

}  // namespace ds
