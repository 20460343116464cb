#include "libcore/text/white_space.h"

#include <cstdint>

namespace ds {
namespace {

bool is_white_space(std::uint32_t c) {
  return (c >= 9 && c <= 13) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
         (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f ||
         c == 0x3000;
}

}  // namespace

std::size_t white_space_at(std::string_view text, std::size_t at) {
  const auto byte = [&](std::size_t i) -> std::uint32_t {
    return at + i < text.size() ? static_cast<unsigned char>(text[at + i]) : 0u;
  };
  const std::uint32_t lead = byte(0);
  if (lead < 0x80) return at < text.size() && is_white_space(lead) ? 1 : 0;
  const auto tail = [&](std::size_t i) { return (byte(i) & 0xc0) == 0x80; };
  if (lead == 0xc2) {
    return tail(1) && is_white_space((lead & 0x1f) << 6 | (byte(1) & 0x3f)) ? 2 : 0;
  }
  if (lead < 0xe1 || lead > 0xe3 || !tail(1) || !tail(2)) return 0;
  return is_white_space((lead & 0x0f) << 12 | (byte(1) & 0x3f) << 6 | (byte(2) & 0x3f)) ? 3 : 0;
}

std::size_t white_space_after(std::string_view text) {
  std::size_t at = 0;
  while (const std::size_t length = white_space_at(text, at)) at += length;
  return at;
}

std::size_t white_space_before(std::string_view text) {
  std::size_t at = text.size();
  while (true) {
    std::size_t length = 1;
    while (length <= 3 && length <= at && white_space_at(text, at - length) != length) ++length;
    if (length > 3 || length > at) return text.size() - at;
    at -= length;
  }
}

}  // namespace ds
