#include "kernels/reduce.h"

#include <cmath>
#include <cstring>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"

namespace ds::test {
namespace {

using kernels::ColumnSum;
using kernels::CountNonFinite;
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

void parity(Of<CountNonFinite>) {
  // NaN and infinity of both signs, and the largest numbers beside them, as codes.
  struct Special {
    DType dtype;
    std::uint32_t odd[4], even[2];
  };
  constexpr Special kSpecials[] = {
      {DType::kF32, {0x7f800000, 0xff800000, 0x7fc00000, 0xff800001}, {0x7f7fffff, 0xff7fffff}},
      {DType::kBF16, {0x7f80, 0xff80, 0x7fc0, 0xff81}, {0x7f7f, 0xff7f}},
      {DType::kF16, {0x7c00, 0xfc00, 0x7e00, 0xfc01}, {0x7bff, 0xfbff}},
      {DType::kF8E4M3, {0x7f, 0xff, 0x7f, 0xff}, {0x7e, 0xfe}}};
  for (const Special& special : kSpecials) {
    const auto size = static_cast<std::size_t>(kernels::dtype_size(special.dtype));
    for (const Size shape : {Size{1, 1}, Size{3, 37}, Size{5, 9001}}) {
      for_settings({special.dtype}, [&](const Setting& s) {
        GuardedMatrix x = random_matrix(s.dtype, shape.rows, shape.cols, s.gap, 1);
        const auto put = [&](std::int64_t row, std::int64_t col, std::uint32_t code) {
          auto* at = static_cast<std::byte*>(x.view().data()) +
                     static_cast<std::size_t>(row * x.view().row_stride() + col) * size;
          std::memcpy(at, &code, size);
        };
        std::int64_t count = -1;
        const CountNonFinite op{x.view(), View(&count, DType::kI64, {1})};
        check(op);
        CpuContext context = s.context();
        put(shape.rows - 1, shape.cols - 1, special.even[0]);
        put(0, 0, special.even[1]);
        run(context, op);
        CHECK(count == 0);
        std::int64_t want = 0;
        for (std::int64_t i = 0; i < shape.rows * shape.cols; i += 1 + i / 3) {
          put(i / shape.cols, i % shape.cols, special.odd[want % 4]);
          ++want;
        }
        run(context, op);
        CHECK(count == want);
        CHECK(x.intact());
      });
    }
  }
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
  std::int64_t count = 0;
  const ConstView wide(&count, DType::kF64, {1});
  CHECK_THROWS_WITH_AS(check(CountNonFinite{wide, View(&count, DType::kI64, {1})}),
                       "count_non_finite: x is F64, need F32, BF16, F16 or F8_E4M3",
                       std::invalid_argument);
  const ConstView tensors[] = {x.view()};
  double out[2];
  CHECK_THROWS_WITH_AS(check(SquaredNorm{tensors, out}), "squared_norm: 1 tensors but 2 results",
                       std::invalid_argument);
}

}  // namespace ds::test
