#include "libcore/text/jinja_unicode.h"

#include <algorithm>

#include "libcore/text/white_space.h"

namespace ds::jinja {

std::size_t space_at(std::string_view text, std::size_t at) {
  if (at >= text.size()) return 0;
  if (text[at] >= '\x1c' && text[at] <= '\x1f') return 1;  // Python's alone
  return white_space_at(text, at);
}

std::string_view left_stripped(std::string_view text) {
  while (const std::size_t length = space_at(text, 0)) text.remove_prefix(length);
  return text;
}

std::string_view right_stripped(std::string_view text) {
  while (!text.empty()) {
    std::size_t last = text.size() - 1;
    while (last > 0 && (static_cast<unsigned char>(text[last]) & 0xc0u) == 0x80u) --last;
    if (space_at(text, last) == 0) break;
    text = text.substr(0, last);
  }
  return text;
}

bool is_ascii(std::string_view text) {
  return std::all_of(text.begin(), text.end(),
                     [](char c) { return static_cast<unsigned char>(c) < 0x80; });
}

std::size_t code_points(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), [](char c) {
    return (static_cast<unsigned char>(c) & 0xc0u) != 0x80u;
  }));
}

std::size_t length_at(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  return lead < 0x80 ? 1 : lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
}

std::uint32_t code_point_at(std::string_view text, std::size_t at) {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t length = length_at(text, at);
  if (length == 1) return lead;
  std::uint32_t code_point = lead & (0xffu >> (length + 1));
  for (std::size_t k = 1; k < length; ++k) {
    code_point = code_point << 6 | (static_cast<unsigned char>(text[at + k]) & 0x3fu);
  }
  return code_point;
}

}  // namespace ds::jinja
