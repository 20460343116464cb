#include "libcore/base/utf8.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace ds {
namespace {

struct Step {
  std::size_t length = 0;  // bytes of the sequence, or of the maximal invalid part
  bool valid = false;
};

// One sequence at text[0], which is not ASCII.
Step step(const unsigned char* text, std::size_t size) {
  const unsigned char lead = text[0];
  std::size_t length = 0;
  unsigned char low = 0x80;
  unsigned char high = 0xbf;  // what the second byte may be
  if (lead >= 0xc2 && lead <= 0xdf) {
    length = 2;
  } else if (lead >= 0xe0 && lead <= 0xef) {
    length = 3;
    if (lead == 0xe0) low = 0xa0;
    if (lead == 0xed) high = 0x9f;
  } else if (lead >= 0xf0 && lead <= 0xf4) {
    length = 4;
    if (lead == 0xf0) low = 0x90;
    if (lead == 0xf4) high = 0x8f;
  } else {
    return {1, false};
  }
  for (std::size_t i = 1; i < length; ++i) {
    if (i >= size || text[i] < low || text[i] > high) return {i, false};
    low = 0x80;
    high = 0xbf;
  }
  return {length, true};
}

// Number of leading ASCII bytes.
std::size_t ascii_run(const unsigned char* text, std::size_t size) {
  std::size_t i = 0;
  constexpr std::size_t kWords = 8;
  for (; i + 8 * kWords <= size; i += 8 * kWords) {
    std::array<std::uint64_t, kWords> words{};
    std::memcpy(words.data(), text + i, sizeof words);
    std::uint64_t all = 0;
    for (const std::uint64_t word : words) all |= word;
    if ((all & 0x8080808080808080u) != 0) break;
  }
  while (i < size && text[i] < 0x80) ++i;
  return i;
}

}  // namespace

std::size_t utf8_error(std::string_view text) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  std::size_t i = 0;
  while (i < text.size()) {
    if (bytes[i] < 0x80) {
      i += ascii_run(bytes + i, text.size() - i);
      continue;
    }
    const Step at = step(bytes + i, text.size() - i);
    if (!at.valid) return i;
    i += at.length;
  }
  return kUtf8Valid;
}

std::string utf8_replace(std::string_view text) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  std::string out;
  out.reserve(text.size());
  std::size_t i = 0;
  while (i < text.size()) {
    Step at{ascii_run(bytes + i, text.size() - i), true};
    if (at.length == 0) at = step(bytes + i, text.size() - i);
    if (at.valid) {
      out.append(text, i, at.length);
    } else {
      out += "\xef\xbf\xbd";
    }
    i += at.length;
  }
  return out;
}

void append_utf8(std::string& text, std::uint32_t c) {
  if ((c >= 0xd800 && c <= 0xdfff) || c > 0x10ffff) c = 0xfffd;
  if (c < 0x80) {
    text += static_cast<char>(c);
  } else if (c < 0x800) {
    text += static_cast<char>(0xc0 | (c >> 6));
    text += static_cast<char>(0x80 | (c & 63));
  } else if (c < 0x10000) {
    text += static_cast<char>(0xe0 | (c >> 12));
    text += static_cast<char>(0x80 | ((c >> 6) & 63));
    text += static_cast<char>(0x80 | (c & 63));
  } else {
    text += static_cast<char>(0xf0 | (c >> 18));
    text += static_cast<char>(0x80 | ((c >> 12) & 63));
    text += static_cast<char>(0x80 | ((c >> 6) & 63));
    text += static_cast<char>(0x80 | (c & 63));
  }
}

bool looks_like_gbk(std::string_view text) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(text.data());
  // UTF-8 text with one broken byte often pairs up as GBK by accident; what tells them apart is how
  // much of it is valid UTF-8.
  std::size_t invalid = 0;
  std::size_t high = 0;
  for (std::size_t i = 0; i < text.size();) {
    if (bytes[i] < 0x80) {
      ++i;
      continue;
    }
    const Step at = step(bytes + i, text.size() - i);
    high += at.length;
    if (!at.valid) invalid += at.length;
    i += at.length;
  }
  if (invalid * 2 < high) return false;
  std::size_t chinese = 0;
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (bytes[i] < 0x80) continue;
    if (bytes[i] == 0x80 || bytes[i] == 0xff || i + 1 >= text.size()) return false;
    const unsigned char trail = bytes[++i];
    if (trail < 0x40 || trail == 0x7f || trail == 0xff) return false;
    if (bytes[i - 1] >= 0xb0 && bytes[i - 1] <= 0xf7 && trail >= 0xa1) ++chinese;
  }
  return chinese >= 2;
}

}  // namespace ds
