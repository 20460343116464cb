// One Unicode version for all pre-tokenizer patterns: 16.0, that of the `tokenizers` library 0.22.
// PCRE2 brings its own tables, 14.0 in the version we are built with and others elsewhere. Code
// points that differ are matched through stand-ins of the same category and the same UTF-8 length.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace ds {

inline constexpr std::string_view kUnicodeVersion = "16.0";

// Writes `text` (valid UTF-8) with stand-ins to `stable` and returns true, or returns false and
// leaves `stable` alone when the text needs none (nearly always). Offsets stay the same.
bool to_stable_text(std::string_view text, std::string& stable);

struct CodePointRange {
  std::uint32_t first = 0;
  std::uint32_t last = 0;
};
// Whether matching these explicit ranges gives the same answer for every code point and its
// stand-in.
bool is_stable_set(const std::vector<CodePointRange>& ranges);

}  // namespace ds
