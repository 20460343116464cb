// What the op tests share: the settings an op runs under, operands and f64 copies of them.
#pragma once

#include <doctest/doctest.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "kernels/context.h"
#include "kernels/view.h"
#include "tests/support/buffers.h"
#include "tests/support/compare.h"

namespace ds::test {

using kernels::ConstView;
using kernels::CpuContext;
using kernels::DType;
using kernels::Isa;
using kernels::View;

// One way to run an op. `gap` is the distance between rows beyond their length.
struct Setting {
  DType dtype;
  Isa isa;
  int threads;
  std::int64_t gap;

  DType statistics() const { return kernels::statistics_dtype(dtype); }
  CpuContext context() const { return CpuContext(threads, isa); }
  std::string text() const {
    return std::string(kernels::dtype_name(dtype)) + ", " + std::string(kernels::isa_name(isa)) +
           ", " + std::to_string(threads) + " threads, gap " + std::to_string(gap);
  }
};

inline std::vector<Isa> available_isas() {
  std::vector<Isa> isas;
  for (const Isa isa : {Isa::kBaseline, Isa::kAvx2, Isa::kAvx512, Isa::kAvx512Bf16}) {
    if (isa <= kernels::detect_isa()) isas.push_back(isa);
  }
  return isas;
}

template <class F>
void for_settings(std::initializer_list<DType> dtypes, F&& f) {
  for (const DType dtype : dtypes) {
    for (const Isa isa : available_isas()) {
      for (const int threads : {1, 2}) {
        for (const std::int64_t gap : {0, 3}) {
          const Setting setting{dtype, isa, threads, gap};
          INFO(setting.text());
          f(setting);
        }
      }
    }
  }
}
template <class F>
void for_settings(F&& f) {
  for_settings({DType::kF64, DType::kF32, DType::kBF16}, f);
}

// A matrix in f64 for references.
struct Mat {
  std::int64_t rows = 0, cols = 0;
  std::vector<double> values;

  Mat(std::int64_t r, std::int64_t c, double value = 0.0)
      : rows(r), cols(c), values(static_cast<std::size_t>(r * c), value) {}
  explicit Mat(const ConstView& view)
      : rows(view.rows()), cols(view.cols()), values(to_doubles(view)) {}
  double& operator()(std::int64_t r, std::int64_t c) {
    return values[static_cast<std::size_t>(r * cols + c)];
  }
  double operator()(std::int64_t r, std::int64_t c) const {
    return values[static_cast<std::size_t>(r * cols + c)];
  }
};

inline GuardedMatrix random_matrix(DType dtype, std::int64_t rows, std::int64_t cols,
                                   std::int64_t gap, std::uint64_t seed, double scale = 1.0) {
  GuardedMatrix matrix(dtype, rows, cols, gap);
  fill_normal(matrix.view(), seed, scale);
  return matrix;
}
// A copy in F64 with contiguous rows.
inline GuardedMatrix widened(const ConstView& view) {
  GuardedMatrix matrix(DType::kF64, view.rows(), view.cols());
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    for (std::int64_t c = 0; c < view.cols(); ++c) {
      set_element(matrix.view(), r, c, element(view, r, c));
    }
  }
  return matrix;
}
inline GuardedMatrix index_matrix(std::int64_t rows, std::int64_t cols, std::int64_t limit,
                                  std::uint64_t seed) {
  GuardedMatrix matrix(DType::kI32, rows, cols);
  TestRandom random(seed);
  for (std::int64_t i = 0; i < rows * cols; ++i) {
    set_element(matrix.view(), i / cols, i % cols,
                static_cast<double>(random.next() % static_cast<std::uint64_t>(limit)));
  }
  return matrix;
}
inline GuardedMatrix index_vector(const std::vector<std::int32_t>& values) {
  GuardedMatrix matrix(DType::kI32, 1, static_cast<std::int64_t>(values.size()));
  for (std::size_t i = 0; i < values.size(); ++i) {
    matrix.vector().as<std::int32_t>()[i] = values[i];
  }
  return matrix;
}

// `value` after one rounding to `dtype`.
inline double rounded(DType dtype, double value) {
  if (dtype == DType::kF64) return value;
  const auto narrow = static_cast<float>(value);
  return dtype == DType::kF32 ? narrow : static_cast<float>(kernels::bf16(narrow));
}

inline void expect_close(const ConstView& got, const std::vector<double>& want,
                         Tolerance tolerance) {
  const Comparison c = compare(got, want, tolerance);
  CHECK_MESSAGE(c.ok, c.text);
}
inline void expect_close(const ConstView& got, const Mat& want, Tolerance tolerance) {
  expect_close(got, want.values, tolerance);
}

}  // namespace ds::test
