#include "kernels/swiglu.h"

#include <cmath>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"
#include "tests/support/gradcheck.h"

namespace ds::test {
namespace {

using kernels::SwigluBackward;
using kernels::SwigluForward;

struct Size {
  std::int64_t rows, width;
};
constexpr Size kSizes[] = {{1, 1}, {3, 37}, {31, 301}};

double logistic(double x) { return 1.0 / (1.0 + std::exp(-x)); }

}  // namespace

void parity(Of<SwigluForward>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      for (const bool weighted : {false, true}) {
        CpuContext context = s.context();
        GuardedMatrix gate_up = random_matrix(s.dtype, size.rows, 2 * size.width, s.gap, 1, 3.0);
        GuardedMatrix weight = random_matrix(s.statistics(), 1, size.rows, 0, 2);
        GuardedMatrix y(s.dtype, size.rows, size.width, s.gap);
        SwigluForward op{gate_up.view(), {}, y.view()};
        if (weighted) op.row_weight = weight.vector();
        check(op);
        run(context, op);
        const Mat in(gate_up.view()), w(weight.view());
        Mat want(size.rows, size.width);
        for (std::int64_t r = 0; r < size.rows; ++r) {
          for (std::int64_t i = 0; i < size.width; ++i) {
            const double g = in(r, i);
            want(r, i) = (weighted ? w(0, r) : 1.0) * g * logistic(g) * in(r, size.width + i);
          }
        }
        expect_close(y.view(), want, tolerance_for(s.dtype, 4));
        CHECK(y.intact());
      }
    });
  }
}

void parity(Of<SwigluBackward>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      for (const bool weighted : {false, true}) {
        CpuContext context = s.context();
        GuardedMatrix gate_up = random_matrix(s.dtype, size.rows, 2 * size.width, s.gap, 1, 3.0);
        GuardedMatrix dy = random_matrix(s.dtype, size.rows, size.width, s.gap, 2);
        GuardedMatrix weight = random_matrix(s.statistics(), 1, size.rows, 0, 3);
        GuardedMatrix d(s.dtype, size.rows, 2 * size.width, s.gap);
        GuardedMatrix d_weight(s.statistics(), 1, size.rows);
        SwigluBackward op{dy.view(), gate_up.view(), {}, d.view(), {}};
        if (weighted) {
          op.row_weight = weight.vector();
          op.d_row_weight = d_weight.vector();
        }
        check(op);
        run(context, op);
        const Mat in(gate_up.view()), up(dy.view()), w(weight.view());
        Mat want(size.rows, 2 * size.width), want_weight(1, size.rows);
        for (std::int64_t r = 0; r < size.rows; ++r) {
          for (std::int64_t i = 0; i < size.width; ++i) {
            const double g = in(r, i), u = in(r, size.width + i), sg = logistic(g);
            const double value = up(r, i) * (weighted ? w(0, r) : 1.0);
            want(r, i) = value * u * sg * (1.0 + g * (1.0 - sg));
            want(r, size.width + i) = value * g * sg;
            want_weight(0, r) += up(r, i) * g * sg * u;
          }
        }
        expect_close(d.view(), want, tolerance_for(s.dtype, 8));
        if (weighted) {
          expect_close(d_weight.view(), want_weight,
                       tolerance_for(s.statistics(), size.width, 2.0));
        }
        CHECK(d.intact());
        CHECK(d_weight.intact());
        // In place, over its own input: the same bits.
        const Mat apart(d.view());
        op.d_gate_up = gate_up.view();
        run(context, op);
        CHECK(Mat(gate_up.view()).values == apart.values);
      }
    });
  }
}

void gradient(Of<SwigluBackward>) {
  CpuContext context(1, kernels::detect_isa());
  GuardedMatrix gate_up = random_matrix(DType::kF64, 3, 14, 2, 1);
  GuardedMatrix weight = random_matrix(DType::kF64, 1, 3, 0, 2);
  GuardedMatrix dy = random_matrix(DType::kF64, 3, 7, 0, 3);
  GuardedMatrix y(DType::kF64, 3, 7), d(DType::kF64, 3, 14), d_weight(DType::kF64, 1, 3);
  const auto loss = [&] {
    run(context, SwigluForward{gate_up.view(), weight.vector(), y.view()});
    return inner(y.view(), dy.view());
  };
  run(context,
      SwigluBackward{dy.view(), gate_up.view(), weight.vector(), d.view(), d_weight.vector()});
  Comparison c = check_gradient(gate_up.view(), d.view(), loss);
  CHECK_MESSAGE(c.ok, "gate_up: ", c.text);
  c = check_gradient(weight.view(), d_weight.view(), loss);
  CHECK_MESSAGE(c.ok, "row_weight: ", c.text);
}

TEST_CASE("swiglu of extreme gates is finite") {
  for (const Isa isa : available_isas()) {
    CpuContext context(1, isa);
    GuardedMatrix gate_up(DType::kF32, 1, 8);
    const float gates[4] = {-200.0f, -88.0f, 88.0f, 200.0f};
    for (int i = 0; i < 4; ++i) {
      gate_up.view().as<float>()[i] = gates[i];
      gate_up.view().as<float>()[4 + i] = 1.0f;
    }
    GuardedMatrix y(DType::kF32, 1, 4);
    run(context, SwigluForward{gate_up.view(), {}, y.view()});
    const float* got = y.view().as<float>();
    CHECK(std::fabs(got[0]) < 1e-30f);
    CHECK(std::fabs(got[1]) < 1e-30f);
    CHECK(got[2] == 88.0f);
    CHECK(got[3] == 200.0f);
  }
}

TEST_CASE("swiglu refuses operands that do not fit") {
  GuardedMatrix gate_up = random_matrix(DType::kF32, 2, 7, 0, 1);
  GuardedMatrix y(DType::kF32, 2, 4);
  CHECK_THROWS_WITH_AS(check(SwigluForward{gate_up.view(), {}, y.view()}),
                       "swiglu_forward: gate_up is [2, 7], need [2, 8]", std::invalid_argument);
}

}  // namespace ds::test
