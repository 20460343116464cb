// Text in JUnit reports.
#pragma once

#include <string>
#include <string_view>

namespace ds::check {

// `text` as the value of an XML 1.0 attribute or element: escaped, valid UTF-8.
std::string xml_text(std::string_view text);

}  // namespace ds::check
