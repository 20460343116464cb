// What one pass over a tensor's bytes shows.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "libcore/io/safetensors.h"

namespace ds::check {

inline constexpr std::uint64_t kNowhere = ~std::uint64_t{0};

// Of a tensor, or of a stretch of it. Elements are counted from the stretch's own first one.
struct TensorStats {
  std::uint64_t elements = 0;
  std::uint64_t bad = 0;  // NaN or infinite values, NaN codes
  std::uint64_t first_bad = kNowhere;
  std::uint64_t not_positive = 0;  // finite values <= 0
  std::uint64_t first_not_positive = kNowhere;
  std::uint64_t mantissa = 0;  // F32: finite values above 0 that are no power of two
  std::uint64_t first_mantissa = kNowhere;
  std::uint64_t saturated = 0;    // FP8: codes of the largest magnitude
  std::uint64_t zeros = 0;        // FP8, 16 and 32 bits: elements that are 0
  std::uint8_t largest_code = 0;  // FP8: without the sign, NaN left out
  double largest = 0.0;           // magnitude of the finite values
  double smallest = 0.0;          // magnitude of the finite values that are not 0; 0: none
  double squares = 0.0;           // sum over `sampled` finite values
  std::uint64_t sampled = 0;
  bool uniform = true;  // all elements have the same bits
  bool zero = true;     // all bits are 0
  std::uint64_t first_bits = 0;
  std::uint64_t digest = 0;

  double rms() const;
};

// Of a stretch of whole elements. dtypes without a rule of their own give digest, uniform and zero.
TensorStats scan(DType dtype, std::span<const std::byte> bytes);
// Signs and mantissas of F32 scales, added to `stats` of the same stretch.
void scan_scales(std::span<const std::byte> bytes, TensorStats& stats);
// Appends the stretch that follows.
void append(TensorStats& stats, const TensorStats& next);

}  // namespace ds::check
