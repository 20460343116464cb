#include "kernels/rms_norm.h"

#include <cmath>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"
#include "tests/support/gradcheck.h"

namespace ds::test {
namespace {

using kernels::RmsNormBackward;
using kernels::RmsNormForward;

struct Size {
  std::int64_t tokens, dim;
};
constexpr Size kSizes[] = {{1, 1}, {3, 37}, {67, 301}};  // the last one uses both threads

}  // namespace

void parity(Of<RmsNormForward>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      CpuContext context = s.context();
      GuardedMatrix x = random_matrix(s.dtype, size.tokens, size.dim, s.gap, 1);
      GuardedMatrix weight = random_matrix(s.statistics(), 1, size.dim, 0, 2);
      GuardedMatrix y(s.dtype, size.tokens, size.dim, s.gap);
      GuardedMatrix rstd(s.statistics(), 1, size.tokens);
      const RmsNormForward op{x.view(), weight.vector(), y.view(), rstd.vector(), 1e-6};
      check(op);
      run(context, op);
      const Mat in(x.view()), w(weight.view());
      Mat want(size.tokens, size.dim), want_rstd(1, size.tokens);
      for (std::int64_t t = 0; t < size.tokens; ++t) {
        double squares = 0.0;
        for (std::int64_t i = 0; i < size.dim; ++i) squares += in(t, i) * in(t, i);
        const double r = 1.0 / std::sqrt(squares / static_cast<double>(size.dim) + 1e-6);
        want_rstd(0, t) = r;
        for (std::int64_t i = 0; i < size.dim; ++i) {
          want(t, i) = w(0, i) * rounded(s.dtype, in(t, i) * r);
        }
      }
      // Twice: the normalised value may round the other way than the reference's.
      expect_close(y.view(), want, tolerance_for(s.dtype, size.dim, 2.0));
      expect_close(rstd.view(), want_rstd, tolerance_for(s.statistics(), size.dim));
      CHECK(y.intact());
      CHECK(rstd.intact());
      const auto first = y.bytes();
      run(context, op);
      CHECK(first == y.bytes());
    });
  }
}

void parity(Of<RmsNormBackward>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      for (const bool accumulate : {false, true}) {
        CpuContext context = s.context();
        GuardedMatrix x = random_matrix(s.dtype, size.tokens, size.dim, s.gap, 1);
        GuardedMatrix dy = random_matrix(s.dtype, size.tokens, size.dim, s.gap, 2);
        GuardedMatrix weight = random_matrix(s.statistics(), 1, size.dim, 0, 3);
        GuardedMatrix rstd = random_matrix(s.statistics(), 1, size.tokens, 0, 4);
        GuardedMatrix dx = random_matrix(s.dtype, size.tokens, size.dim, s.gap, 5);
        GuardedMatrix dweight = random_matrix(s.statistics(), 1, size.dim, 0, 6);
        const Mat in(x.view()), up(dy.view()), w(weight.view()), r(rstd.view());
        Mat want(dx.view()), want_weight(dweight.view());
        for (std::int64_t t = 0; t < size.tokens; ++t) {
          double along = 0.0;
          for (std::int64_t i = 0; i < size.dim; ++i) along += up(t, i) * w(0, i) * in(t, i);
          along *= r(0, t) * r(0, t) * r(0, t) / static_cast<double>(size.dim);
          for (std::int64_t i = 0; i < size.dim; ++i) {
            const double value = up(t, i) * w(0, i) * r(0, t) - in(t, i) * along;
            want(t, i) = value + (accumulate ? want(t, i) : 0.0);
            want_weight(0, i) += up(t, i) * rounded(s.dtype, in(t, i) * r(0, t));
          }
        }
        const RmsNormBackward op{dy.view(), x.view(),   weight.vector(), rstd.vector(),
                                 dx.view(), accumulate, dweight.vector()};
        check(op);
        run(context, op);
        expect_close(dx.view(), want, tolerance_for(s.dtype, size.dim));
        // A flipped rounding of the normalised value costs half a unit of the compute dtype.
        Tolerance loose = tolerance_for(s.statistics(), size.tokens);
        if (s.dtype == DType::kBF16) loose = {loose.element + 0x1p-13, 1e-10};
        expect_close(dweight.view(), want_weight, loose);
        CHECK(dx.intact());
        CHECK(dweight.intact());
      }
    });
  }
}

void gradient(Of<RmsNormBackward>) {
  CpuContext context(2, kernels::detect_isa());
  GuardedMatrix x = random_matrix(DType::kF64, 5, 13, 2, 1);
  GuardedMatrix weight = random_matrix(DType::kF64, 1, 13, 0, 2);
  GuardedMatrix dy = random_matrix(DType::kF64, 5, 13, 0, 3);
  GuardedMatrix y(DType::kF64, 5, 13), rstd(DType::kF64, 1, 5);
  GuardedMatrix dx(DType::kF64, 5, 13), dweight(DType::kF64, 1, 13);
  fill(dweight.view(), 0.0);
  const auto loss = [&] {
    run(context, RmsNormForward{x.view(), weight.vector(), y.view(), rstd.vector(), 1e-3});
    return inner(y.view(), dy.view());
  };
  loss();
  run(context, RmsNormBackward{dy.view(), x.view(), weight.vector(), rstd.vector(), dx.view(),
                               false, dweight.vector()});
  Comparison c = check_gradient(x.view(), dx.view(), loss);
  CHECK_MESSAGE(c.ok, "x: ", c.text);
  c = check_gradient(weight.view(), dweight.view(), loss);
  CHECK_MESSAGE(c.ok, "weight: ", c.text);
}

TEST_CASE("rms_norm refuses operands that do not fit") {
  GuardedMatrix x = random_matrix(DType::kF32, 2, 4, 0, 1);
  GuardedMatrix weight = random_matrix(DType::kF32, 1, 4, 0, 1);
  GuardedMatrix narrow = random_matrix(DType::kF32, 1, 3, 0, 1);
  GuardedMatrix rstd(DType::kF32, 1, 2);
  RmsNormForward op{x.view(), narrow.vector(), x.view(), rstd.vector()};
  CHECK_THROWS_WITH_AS(check(op), "rms_norm_forward: weight has 3 elements, need 4",
                       std::invalid_argument);
  op.weight = ConstView();
  CHECK_THROWS_WITH_AS(check(op), "rms_norm_forward: weight is not given", std::invalid_argument);
  op.weight = weight.vector();
  check(op);
  op.eps = std::nan("");
  CHECK_THROWS_AS(check(op), std::invalid_argument);
}

}  // namespace ds::test
