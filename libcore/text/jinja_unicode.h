// Texts as Python sees them: code points, and white space as str.strip() and \s know it.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ds::jinja {

// Length in bytes of the white space character at text[at], 0 when there is none (or no text).
std::size_t space_at(std::string_view text, std::size_t at);
std::string_view left_stripped(std::string_view text);
std::string_view right_stripped(std::string_view text);
bool is_ascii(std::string_view text);

// Of valid UTF-8: the number of code points, the bytes of the one at text[at], its value.
std::size_t code_points(std::string_view text);
std::size_t length_at(std::string_view text, std::size_t at);
std::uint32_t code_point_at(std::string_view text, std::size_t at);

}  // namespace ds::jinja
