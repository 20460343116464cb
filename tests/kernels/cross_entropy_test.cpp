#include "kernels/cross_entropy.h"

#include <algorithm>
#include <cmath>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"
#include "tests/support/gradcheck.h"

namespace ds::test {
namespace {

using kernels::CrossEntropyBackward;
using kernels::CrossEntropyForward;

struct Size {
  std::int64_t rows, vocab;
};
constexpr Size kSizes[] = {{1, 1}, {3, 37}, {5, 5003}};

double log_sum_exp(const Mat& logits, std::int64_t row) {
  double largest = -HUGE_VAL, sum = 0.0;
  for (std::int64_t i = 0; i < logits.cols; ++i) largest = std::max(largest, logits(row, i));
  for (std::int64_t i = 0; i < logits.cols; ++i) sum += std::exp(logits(row, i) - largest);
  return largest + std::log(sum);
}

}  // namespace

void parity(Of<CrossEntropyForward>) {
  for (const Size size : kSizes) {
    for_settings({DType::kF64, DType::kF32}, [&](const Setting& s) {
      CpuContext context = s.context();
      GuardedMatrix logits = random_matrix(s.dtype, size.rows, size.vocab, s.gap, 1, 4.0);
      GuardedMatrix targets = index_matrix(1, size.rows, size.vocab, 2);
      GuardedMatrix loss(s.dtype, 1, size.rows), lse(s.dtype, 1, size.rows);
      const CrossEntropyForward op{logits.view(), targets.vector(), loss.vector(), lse.vector()};
      check(op);
      run(context, op);
      const Mat in(logits.view()), at(targets.view());
      Mat want(1, size.rows), want_lse(1, size.rows);
      for (std::int64_t r = 0; r < size.rows; ++r) {
        want_lse(0, r) = log_sum_exp(in, r);
        want(0, r) = want_lse(0, r) - in(r, static_cast<std::int64_t>(at(0, r)));
      }
      expect_close(lse.view(), want_lse, tolerance_for(s.dtype, 4));
      expect_close(loss.view(), want, tolerance_for(s.dtype, 4));
      CHECK(loss.intact());
      CHECK(lse.intact());
    });
  }
}

void parity(Of<CrossEntropyBackward>) {
  for (const Size size : kSizes) {
    for_settings({DType::kF64, DType::kF32}, [&](const Setting& s) {
      CpuContext context = s.context();
      GuardedMatrix logits = random_matrix(s.dtype, size.rows, size.vocab, s.gap, 1, 4.0);
      GuardedMatrix targets = index_matrix(1, size.rows, size.vocab, 2);
      GuardedMatrix lse(s.dtype, 1, size.rows), d(s.dtype, size.rows, size.vocab, s.gap);
      const Mat in(logits.view()), at(targets.view());
      for (std::int64_t r = 0; r < size.rows; ++r) {
        set_element(lse.view(), 0, r, log_sum_exp(in, r));
      }
      const Mat used(lse.view());
      CrossEntropyBackward op{logits.view(), targets.vector(), lse.vector(), 0.125, d.view()};
      check(op);
      run(context, op);
      Mat want(size.rows, size.vocab);
      for (std::int64_t r = 0; r < size.rows; ++r) {
        for (std::int64_t i = 0; i < size.vocab; ++i) {
          want(r, i) = 0.125 * (std::exp(in(r, i) - used(0, r)) - (i == at(0, r) ? 1.0 : 0.0));
        }
      }
      // Of f32, exp multiplies the rounding error of a difference of up to about 30 by 30.
      expect_close(d.view(), want, tolerance_for(s.dtype, 64));
      CHECK(d.intact());
      const Mat apart(d.view());
      if (s.dtype == DType::kF32) {
        GuardedMatrix rounded(DType::kBF16, size.rows, size.vocab, s.gap);
        op.d_logits = rounded.view();
        check(op);
        run(context, op);
        expect_close(rounded.view(), apart, tolerance_for(DType::kBF16, 1));
        CHECK(rounded.intact());
      }
      op.d_logits = logits.view();
      run(context, op);
      CHECK(Mat(logits.view()).values == apart.values);
    });
  }
}

void gradient(Of<CrossEntropyBackward>) {
  CpuContext context(1, kernels::detect_isa());
  GuardedMatrix logits = random_matrix(DType::kF64, 4, 11, 2, 1, 2.0);
  GuardedMatrix targets = index_matrix(1, 4, 11, 2);
  GuardedMatrix loss(DType::kF64, 1, 4), lse(DType::kF64, 1, 4), d(DType::kF64, 4, 11);
  const auto total = [&] {
    run(context, CrossEntropyForward{logits.view(), targets.vector(), loss.vector(), lse.vector()});
    double sum = 0.0;
    for (int r = 0; r < 4; ++r) sum += 0.25 * element(loss.view(), 0, r);
    return sum;
  };
  total();
  run(context, CrossEntropyBackward{logits.view(), targets.vector(), lse.vector(), 0.25, d.view()});
  const Comparison c = check_gradient(logits.view(), d.view(), total);
  CHECK_MESSAGE(c.ok, c.text);
}

TEST_CASE("cross entropy of extreme logits") {
  for (const Isa isa : available_isas()) {
    CpuContext context(1, isa);
    GuardedMatrix logits = random_matrix(DType::kF32, 3, 40, 0, 1);
    GuardedMatrix targets = index_vector({7, 7, 7});
    GuardedMatrix loss(DType::kF32, 1, 3), lse(DType::kF32, 1, 3);
    float* rows = logits.view().as<float>();
    for (int i = 0; i < 40; ++i) rows[i] += 30000.0f;  // a common offset changes nothing
    for (int i = 0; i < 40; ++i) rows[40 + i] = -HUGE_VALF;
    rows[40 + 7] = 3.0f;  // the only possible token
    rows[80 + 5] = std::nanf("");
    run(context, CrossEntropyForward{logits.view(), targets.vector(), loss.vector(), lse.vector()});
    const float* got = loss.view().as<float>();
    CHECK(std::isfinite(got[0]));
    CHECK(got[1] == 0.0f);
    CHECK(std::isnan(got[2]));
  }
}

TEST_CASE("cross entropy refuses a target outside the vocabulary") {
  CpuContext context(1, kernels::detect_isa());
  GuardedMatrix logits = random_matrix(DType::kF32, 2, 5, 0, 1);
  GuardedMatrix targets = index_vector({4, -100});
  GuardedMatrix loss(DType::kF32, 1, 2), lse(DType::kF32, 1, 2);
  const CrossEntropyForward op{logits.view(), targets.vector(), loss.vector(), lse.vector()};
  CHECK_THROWS_WITH_AS(run(context, op),
                       "cross_entropy_forward: targets[1] is -100, need 0 <= index < 5",
                       std::invalid_argument);
  GuardedMatrix half = random_matrix(DType::kBF16, 2, 5, 0, 1);
  CHECK_THROWS_WITH_AS(
      check(CrossEntropyForward{half.view(), targets.vector(), loss.vector(), lse.vector()}),
      "cross_entropy_forward: logits is BF16, need F32 or F64", std::invalid_argument);
}

}  // namespace ds::test
