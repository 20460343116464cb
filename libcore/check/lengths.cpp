#include "libcore/check/lengths.h"

#include <algorithm>
#include <bit>

namespace ds::check {

Lengths summarise_lengths(std::vector<std::int64_t> lengths, std::string_view unit) {
  Lengths result;
  result.unit = unit;
  if (lengths.empty()) return result;
  std::sort(lengths.begin(), lengths.end());
  const std::size_t rows = lengths.size();
  const auto percentile = [&](std::size_t percent) {
    return lengths[(rows * percent + 99) / 100 - 1];
  };
  result.rows = static_cast<std::int64_t>(rows);
  result.p50 = percentile(50);
  result.p90 = percentile(90);
  result.p99 = percentile(99);
  result.max = lengths.back();
  const auto bucket_of = [](std::int64_t length) {
    return std::bit_width(static_cast<std::uint64_t>(length));
  };
  const auto first = bucket_of(lengths.front());
  for (auto bucket = first; bucket <= bucket_of(lengths.back()); ++bucket) {
    result.buckets.push_back(
        {bucket == 0 ? 0 : std::int64_t{1} << (bucket - 1), (std::int64_t{1} << bucket) - 1, 0});
  }
  for (const std::int64_t length : lengths) {
    ++result.buckets[static_cast<std::size_t>(bucket_of(length) - first)].rows;
  }
  return result;
}

}  // namespace ds::check
