#include "tools/convert/merge_change.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>

namespace ds::convert {

namespace {

constexpr std::int64_t kLanes = 16;    // independent sums, so that the loop is done in vectors
constexpr std::int64_t kChunk = 1024;  // values summed in f32

}  // namespace

void Change::add(const Change& other) {
  const auto larger = [](float a, float b) { return std::isnan(a) || a > b ? a : b; };
  largest = larger(largest, other.largest);
  largest_rounding = larger(largest_rounding, other.largest_rounding);
  squares += other.squares;
  rounding_squares += other.rounding_squares;
}

Change measure_change(const float* base, const float* merged, const float* stored,
                      std::int64_t count) {
  // Values that are not negative compare as their bits do; NaN is the largest.
  std::array<std::int32_t, kLanes> largest{}, largest_rounding{};
  Change out;
  for (std::int64_t begin = 0; begin < count; begin += kChunk) {
    const std::int64_t end = std::min(count, begin + kChunk);
    std::array<float, kLanes> squares{}, rounding_squares{};
    const auto add = [&](std::int64_t i, std::size_t lane) {
      const float change = std::fabs(merged[i] - base[i]);
      const float rounding = std::fabs(stored[i] - merged[i]);
      largest[lane] = std::max(largest[lane], std::bit_cast<std::int32_t>(change));
      largest_rounding[lane] =
          std::max(largest_rounding[lane], std::bit_cast<std::int32_t>(rounding));
      squares[lane] += change * change;
      rounding_squares[lane] += rounding * rounding;
    };
    std::int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (std::int64_t lane = 0; lane < kLanes; ++lane) {
        add(i + lane, static_cast<std::size_t>(lane));
      }
    }
    for (; i < end; ++i) add(i, 0);
    for (std::size_t lane = 0; lane < kLanes; ++lane) {
      out.squares += squares[lane];
      out.rounding_squares += rounding_squares[lane];
    }
  }
  out.largest = std::bit_cast<float>(*std::max_element(largest.begin(), largest.end()));
  out.largest_rounding =
      std::bit_cast<float>(*std::max_element(largest_rounding.begin(), largest_rounding.end()));
  return out;
}

}  // namespace ds::convert
