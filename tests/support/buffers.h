// Test operands: memory with guard bytes around every row, deterministic random contents.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

#include "kernels/view.h"

namespace ds::test {

// [rows, cols] with `gap` elements between rows and 64 bytes on both ends, all filled with a
// pattern that intact() expects to find again. gap 0 gives contiguous rows.
class GuardedMatrix {
 public:
  GuardedMatrix(kernels::DType dtype, std::int64_t rows, std::int64_t cols, std::int64_t gap = 0)
      : dtype_(dtype),
        rows_(rows),
        cols_(cols),
        stride_(cols + gap),
        bytes_(
            static_cast<std::size_t>(rows * (cols + gap) * kernels::dtype_size(dtype)) + 2 * kGuard,
            kPattern) {}

  kernels::View view() {
    kernels::View wide(bytes_.data() + kGuard, dtype_, {rows_, stride_});
    return stride_ == cols_ ? wide : wide.slice_cols(0, cols_);
  }
  // A view of rank 1, for [cols] operands; needs one row.
  kernels::View vector() { return view().reshape({cols_}); }

  // Whether every byte outside the elements still holds the pattern.
  bool intact() const {
    const auto size = static_cast<std::size_t>(kernels::dtype_size(dtype_));
    const auto row_bytes = static_cast<std::size_t>(stride_) * size;
    const auto used = static_cast<std::size_t>(cols_) * size;
    for (std::size_t i = 0; i < bytes_.size(); ++i) {
      const bool head = i < kGuard;
      const bool tail = i >= bytes_.size() - kGuard;
      const bool between = !head && !tail && (i - kGuard) % row_bytes >= used;
      if ((head || tail || between) && bytes_[i] != kPattern) return false;
    }
    return true;
  }
  const std::vector<unsigned char>& bytes() const { return bytes_; }

 private:
  static constexpr std::size_t kGuard = 64;
  static constexpr unsigned char kPattern = 0xa5;
  kernels::DType dtype_;
  std::int64_t rows_, cols_, stride_;
  std::vector<unsigned char> bytes_;
};

// SplitMix64: small, fast, the same everywhere.
class TestRandom {
 public:
  explicit TestRandom(std::uint64_t seed) : state_(seed) {}
  std::uint64_t next() {
    std::uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  double uniform() { return static_cast<double>(next() >> 11) * 0x1p-53; }  // [0, 1)
  double normal() {
    const double u = 1.0 - uniform();
    return std::sqrt(-2.0 * std::log(u)) * std::cos(6.283185307179586 * uniform());
  }

 private:
  std::uint64_t state_;
};

// Writes `value` (rounded once through f32 for the narrow dtypes).
inline void set_element(const kernels::View& view, std::int64_t row, std::int64_t col,
                        double value) {
  using kernels::DType;
  const std::int64_t at = row * view.row_stride() + col;
  const auto narrow = static_cast<float>(value);
  switch (view.dtype()) {
    case DType::kF64:
      view.as<double>()[at] = value;
      return;
    case DType::kF32:
      view.as<float>()[at] = narrow;
      return;
    case DType::kBF16:
      view.as<kernels::bf16>()[at] = kernels::bf16(narrow);
      return;
    case DType::kF16:
      view.as<kernels::f16>()[at] = kernels::f16(narrow);
      return;
    case DType::kF8E4M3:
      view.as<kernels::fp8_e4m3>()[at] = kernels::fp8_e4m3(narrow);
      return;
    case DType::kF8E8M0:
      view.as<kernels::ue8m0>()[at] = kernels::ue8m0(narrow);
      return;
    case DType::kI32:
      view.as<std::int32_t>()[at] = static_cast<std::int32_t>(value);
      return;
    default:
      throw std::invalid_argument("set_element: dtype not supported by the test");
  }
}
inline void fill_normal(const kernels::View& view, std::uint64_t seed, double scale = 1.0) {
  TestRandom random(seed);
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    for (std::int64_t c = 0; c < view.cols(); ++c) set_element(view, r, c, scale * random.normal());
  }
}
inline void fill(const kernels::View& view, double value) {
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    for (std::int64_t c = 0; c < view.cols(); ++c) set_element(view, r, c, value);
  }
}

}  // namespace ds::test
