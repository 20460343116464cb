// How long the rows of a dataset are.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

namespace ds::check {

struct Lengths {
  struct Bucket {
    std::int64_t from = 0;
    std::int64_t to = 0;  // included
    std::int64_t rows = 0;
  };
  std::string_view unit;  // "tokens", before truncation, or "characters"
  std::int64_t rows = 0;  // 0: nothing was measured
  std::int64_t p50 = 0;   // the smallest length that half of the rows do not exceed; and so on
  std::int64_t p90 = 0;
  std::int64_t p99 = 0;
  std::int64_t max = 0;
  std::vector<Bucket> buckets;  // 0, 1, 2-3, 4-7, ...: from the first to the last with rows
};

// `lengths` are not negative.
Lengths summarise_lengths(std::vector<std::int64_t> lengths, std::string_view unit);

}  // namespace ds::check
