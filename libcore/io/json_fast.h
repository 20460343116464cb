// The quick way through well-formed rows.
#pragma once

#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string_view>

namespace ds {

// How many bytes at the front of `text` a JSON string may hold as they are: up to the first quote,
// backslash or control character.
std::size_t json_plain_prefix(std::string_view text);

// Parses `text`, which must be valid UTF-8 without lone surrogate escapes, into `value` exactly as
// try_parse_json(text, true, value) does. Returns false, with `value` of no meaning, for everything
// that is no common case: errors, duplicate keys, numbers beyond 64 bits, deep nesting. The caller
// then asks try_parse_json, which has the words for it. `value` may hold an earlier row: its memory
// is used again, which for rows of one form saves nearly all allocations.
bool parse_json_fast(std::string_view text, nlohmann::ordered_json& value);

}  // namespace ds
