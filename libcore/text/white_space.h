// The White_Space property of Unicode (the same in all versions since 6.3).
#pragma once

#include <cstddef>
#include <string_view>

namespace ds {

// Length in bytes of the white space character at text[at], 0 when there is none.
std::size_t white_space_at(std::string_view text, std::size_t at);
// Bytes of white space at the start and at the end of a text.
std::size_t white_space_after(std::string_view text);
std::size_t white_space_before(std::string_view text);

}  // namespace ds
