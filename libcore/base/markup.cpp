#include "libcore/base/markup.h"

#include "libcore/base/utf8.h"

namespace ds {

std::string markup_text(std::string_view text) {
  std::string valid(text);
  for (std::size_t at = utf8_error(valid); at != kUtf8Valid; at = utf8_error(valid))
    valid[at] = '?';
  std::string out;
  for (const char c : valid) {
    switch (c) {
      case '&':
        out += "&amp;";
        break;
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '"':
        out += "&quot;";
        break;
      case '\'':
        out += "&#39;";
        break;
      case '\n':
        out += "&#10;";
        break;
      case '\t':
        out += "&#9;";
        break;
      default:
        // XML 1.0 has no other control characters than tab and line ends, not even escaped.
        out += static_cast<unsigned char>(c) < 0x20 || c == 0x7f ? '?' : c;
    }
  }
  return out;
}

}  // namespace ds
