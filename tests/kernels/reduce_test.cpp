#include "kernels/reduce.h"

#include <cmath>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"

namespace ds::test {
namespace {

using kernels::ColumnSum;
using kernels::RowSquaredNorm;
using kernels::SquaredNorm;

struct Size {
  std::int64_t rows, cols;
};
constexpr Size kSizes[] = {{1, 1}, {3, 37}, {129, 301}};

}  // namespace

void parity(Of<ColumnSum>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      for (const bool product : {false, true}) {
        GuardedMatrix x = random_matrix(s.dtype, size.rows, size.cols, s.gap, 1);
        GuardedMatrix z = random_matrix(s.dtype, size.rows, size.cols, s.gap, 2);
        GuardedMatrix y = random_matrix(s.statistics(), 1, size.cols, 0, 3);
        GuardedMatrix again = random_matrix(s.statistics(), 1, size.cols, 0, 3);
        const Mat in(x.view()), other(z.view());
        Mat want(y.view());
        for (std::int64_t r = 0; r < size.rows; ++r) {
          for (std::int64_t i = 0; i < size.cols; ++i) {
            want(0, i) += in(r, i) * (product ? other(r, i) : 1.0);
          }
        }
        ColumnSum op{x.view(), {}, y.vector()};
        if (product) op.z = z.view();
        check(op);
        CpuContext context = s.context();
        run(context, op);
        expect_close(y.view(), want, tolerance_for(s.statistics(), size.rows));
        CHECK(y.intact());
        CpuContext more(3 - s.threads, s.isa);
        op.y = again.vector();
        run(more, op);
        CHECK(y.bytes() == again.bytes());
      }
    });
  }
}

void parity(Of<RowSquaredNorm>) {
  for (const Size size : kSizes) {
    for_settings({DType::kF64, DType::kF32, DType::kBF16, DType::kF16, DType::kF8E4M3},
                 [&](const Setting& s) {
                   CpuContext context = s.context();
                   const bool scaled = s.dtype == DType::kF8E4M3;
                   const DType out = s.statistics();
                   GuardedMatrix x = random_matrix(s.dtype, size.rows, size.cols, s.gap, 1);
                   GuardedMatrix scale = random_matrix(DType::kF32, (size.rows + 127) / 128,
                                                       (size.cols + 127) / 128, 0, 2);
                   GuardedMatrix y(out, 1, size.rows);
                   RowSquaredNorm op{x.view(), {}, y.vector()};
                   if (scaled) op.scale = scale.view();
                   check(op);
                   run(context, op);
                   const Mat in(x.view()), factor(scale.view());
                   Mat want(1, size.rows);
                   for (std::int64_t r = 0; r < size.rows; ++r) {
                     for (std::int64_t i = 0; i < size.cols; ++i) {
                       const double v = in(r, i) * (scaled ? factor(r / 128, i / 128) : 1.0);
                       want(0, r) += v * v;
                     }
                   }
                   expect_close(y.view(), want, tolerance_for(out, size.cols));
                   CHECK(y.intact());
                 });
  }
}

void parity(Of<SquaredNorm>) {
  for_settings({DType::kF64, DType::kF32}, [](const Setting& s) {
    GuardedMatrix small = random_matrix(s.dtype, 1, 5, 0, 1);
    GuardedMatrix large = random_matrix(s.dtype, 301, 167, 0, 2, 1e3);
    GuardedMatrix huge = random_matrix(s.dtype, 3, 3, 0, 3, 1e30);
    GuardedMatrix middle = random_matrix(DType::kF32, 20, 1000, 0, 4);
    const ConstView empty(nullptr, s.dtype, {0, 4});
    const ConstView tensors[] = {small.view(), large.view(), empty, huge.view(), middle.view()};
    double out[5] = {-1, -1, -1, -1, -1}, more[5] = {-1, -1, -1, -1, -1};
    const SquaredNorm op{tensors, out};
    check(op);
    CpuContext context = s.context(), other(3 - s.threads, s.isa);
    run(context, op);
    run(other, SquaredNorm{tensors, more});
    for (int i = 0; i < 5; ++i) {
      double want = 0.0;
      for (const double v : to_doubles(tensors[i])) want += v * v;
      CHECK(out[i] == doctest::Approx(want).epsilon(1e-13));
      CHECK(out[i] == more[i]);  // independent of the number of threads
    }
  });
}

TEST_CASE("squared_norm shows NaN and infinity") {
  CpuContext context(2, kernels::detect_isa());
  GuardedMatrix a = random_matrix(DType::kF32, 1, 40000, 0, 1);
  GuardedMatrix b = random_matrix(DType::kF32, 1, 40000, 0, 1);
  a.view().as<float>()[39999] = std::nanf("");
  b.view().as<float>()[7] = HUGE_VALF;
  const ConstView tensors[] = {a.view(), b.view()};
  double out[2];
  run(context, SquaredNorm{tensors, out});
  CHECK(std::isnan(out[0]));
  CHECK(std::isinf(out[1]));
}

TEST_CASE("reductions refuse operands that do not fit") {
  GuardedMatrix x = random_matrix(DType::kF32, 2, 4, 0, 1);
  GuardedMatrix y(DType::kF32, 1, 3);
  CHECK_THROWS_WITH_AS(check(ColumnSum{x.view(), {}, y.vector()}),
                       "column_sum: y has 3 elements, need 4", std::invalid_argument);
  CHECK_THROWS_AS(check(RowSquaredNorm{x.view(), y.view(), y.vector()}), std::invalid_argument);
  const ConstView tensors[] = {x.view()};
  double out[2];
  CHECK_THROWS_WITH_AS(check(SquaredNorm{tensors, out}), "squared_norm: 1 tensors but 2 results",
                       std::invalid_argument);
}

}  // namespace ds::test
