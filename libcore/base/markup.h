// Text in XML and HTML.
#pragma once

#include <string>
#include <string_view>

namespace ds {

// `text` as the value of an attribute or element of XML 1.0 or HTML: escaped, valid UTF-8, with '?'
// for what neither may hold.
std::string markup_text(std::string_view text);

}  // namespace ds
