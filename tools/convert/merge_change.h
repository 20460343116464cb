// What a merge did to a weight's values.
#pragma once

#include <cstdint>

namespace ds::convert {

struct Change {
  float largest = 0.0f;           // |merged - base|, NaN when a value is not finite
  float largest_rounding = 0.0f;  // |stored - merged|
  double squares = 0.0;           // sum of (merged - base)^2
  double rounding_squares = 0.0;  // sum of (stored - merged)^2
  void add(const Change& other);
};

// Of `count` values: the base's, the merged ones before rounding, and those as stored.
Change measure_change(const float* base, const float* merged, const float* stored,
                      std::int64_t count);

}  // namespace ds::convert
