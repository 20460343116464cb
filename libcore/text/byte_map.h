// The GPT-2 byte map: every byte as one printable code point (reference/text.md section 1, step 4).
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

namespace ds {

// Code point of each byte: 33-126, 161-172 and 174-255 stand for themselves, the other 68 are
// U+0100, U+0101, ... in byte order.
const std::array<std::uint16_t, 256>& byte_code_points();

// Appends the bytes a vocabulary text stands for. A text with a code point outside the map stands
// for its own UTF-8 (as the `tokenizers` decoder has it). `text` must be valid UTF-8.
void append_token_bytes(std::string_view text, std::string& bytes);

}  // namespace ds
