// Rows of a dataset as the trainer sees them, and batches of packed segments.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace ds {

inline constexpr std::int32_t kNoTarget = -100;

// One tokenised row. labels has the length of ids; kNoTarget where nothing is learned; the shift by
// one is not applied here. labels[0] is never used.
struct Example {
  std::vector<std::int32_t> ids;
  std::vector<std::int32_t> labels;
  std::int64_t line = 0;  // line in the source file, from 1
  std::int32_t file = 0;  // index in Dataset::files
  bool truncated = false;
  std::int64_t whole_length = 0;  // tokens before truncation
  std::int64_t target_count() const {
    std::int64_t n = 0;
    for (std::size_t i = 1; i < labels.size(); ++i) n += labels[i] != kNoTarget ? 1 : 0;
    return n;
  }
};

// Segments one after another without padding; a segment never sees another. targets[i] is the label
// of the NEXT token of the same segment (the shift is done here), kNoTarget at a segment's end.
struct TokenBatch {
  std::vector<std::int32_t> ids;        // [tokens]
  std::vector<std::int32_t> positions;  // [tokens], from 0 in each segment
  std::vector<std::int32_t> targets;    // [tokens]
  std::vector<std::int32_t> segments;   // [count + 1] row offsets, first 0, last = tokens
  std::vector<std::int64_t> lines;      // [count] source lines
  std::int64_t tokens() const { return static_cast<std::int64_t>(ids.size()); }
  std::int64_t target_count() const {
    std::int64_t n = 0;
    for (const std::int32_t t : targets) n += t != kNoTarget ? 1 : 0;
    return n;
  }
};

// Appends an example as a new segment; an example without ids is Error(kInternal), as is a batch of
// more than 2^31 - 1 tokens.
void append_segment(TokenBatch& batch, const Example& example);

}  // namespace ds
