#include "kernels/adamw.h"

#include <bit>
#include <cmath>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"
#include "tests/support/paths.h"

namespace ds::test {
namespace {

using kernels::AdamW;
using kernels::AdamWItem;

// The state of one parameter.
struct Parameter {
  GuardedMatrix param, grad, exp_avg, exp_avg_sq;
  Parameter(DType dtype, std::int64_t rows, std::int64_t cols, std::uint64_t seed)
      : param(random_matrix(dtype, rows, cols, 0, seed)),
        grad(random_matrix(dtype, rows, cols, 0, seed + 1)),
        exp_avg(random_matrix(dtype, rows, cols, 0, seed + 2)),
        exp_avg_sq(random_matrix(dtype, rows, cols, 0, seed + 3)) {
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int64_t c = 0; c < cols; ++c) {
        set_element(exp_avg_sq.view(), r, c, std::fabs(element(exp_avg_sq.view(), r, c)));
      }
    }
  }
  AdamWItem item(double lr, double weight_decay, std::int64_t step) {
    return {param.view(), grad.view(), exp_avg.view(), exp_avg_sq.view(), lr, weight_decay, step};
  }
};

void update(Mat& p, const Mat& grad, Mat& m, Mat& v, const AdamW& op, const AdamWItem& item) {
  const double c1 = 1.0 - std::pow(op.beta1, static_cast<double>(item.step));
  const double c2 = 1.0 - std::pow(op.beta2, static_cast<double>(item.step));
  for (std::size_t i = 0; i < p.values.size(); ++i) {
    const double g = grad.values[i] * op.grad_scale;
    m.values[i] = op.beta1 * m.values[i] + (1.0 - op.beta1) * g;
    v.values[i] = op.beta2 * v.values[i] + (1.0 - op.beta2) * g * g;
    p.values[i] *= 1.0 - item.lr * item.weight_decay;
    p.values[i] -= item.lr * (m.values[i] / c1) / (std::sqrt(v.values[i] / c2) + op.eps);
  }
}

}  // namespace

void parity(Of<AdamW>) {
  for_settings({DType::kF64, DType::kF32}, [](const Setting& s) {
    if (s.gap != 0) return;
    Parameter a(s.dtype, 3, 5, 1), b(s.dtype, 67, 301, 11), c(s.dtype, 1, 1, 21);
    Parameter a2(s.dtype, 3, 5, 1), b2(s.dtype, 67, 301, 11), c2(s.dtype, 1, 1, 21);
    Parameter* const parameters[] = {&a, &b, &c};
    const AdamWItem items[] = {a.item(1e-2, 0.01, 1), b.item(3e-3, 0.0, 7),
                               c.item(1e-3, 0.1, 1000)};
    const AdamW op{items, 0.9, 0.95, 1e-8, 0.37};
    std::vector<Mat> want;
    for (int i = 0; i < 3; ++i) {
      Mat p(items[i].param), m(items[i].exp_avg), v(items[i].exp_avg_sq);
      update(p, Mat(items[i].grad), m, v, op, items[i]);
      want.insert(want.end(), {p, m, v});
    }
    check(op);
    CpuContext context = s.context();
    run(context, op);
    const Tolerance tolerance = tolerance_for(s.dtype, 8);
    for (std::size_t i = 0; i < 3; ++i) {
      expect_close(items[i].param, want[3 * i], tolerance);
      expect_close(items[i].exp_avg, want[3 * i + 1], tolerance);
      expect_close(items[i].exp_avg_sq, want[3 * i + 2], tolerance);
      CHECK(parameters[i]->param.intact());
      CHECK(parameters[i]->exp_avg.intact());
      CHECK(parameters[i]->exp_avg_sq.intact());
    }
    // Another number of threads and the baseline instructions give the same bits.
    const AdamWItem more[] = {a2.item(1e-2, 0.01, 1), b2.item(3e-3, 0.0, 7),
                              c2.item(1e-3, 0.1, 1000)};
    CpuContext other(3 - s.threads, Isa::kBaseline);
    run(other, AdamW{more, 0.9, 0.95, 1e-8, 0.37});
    CHECK(a.param.bytes() == a2.param.bytes());
    CHECK(b.param.bytes() == b2.param.bytes());
    CHECK(b.exp_avg.bytes() == b2.exp_avg.bytes());
    CHECK(b.exp_avg_sq.bytes() == b2.exp_avg_sq.bytes());
  });
}

TEST_CASE("adamw follows torch bit for bit") {
  const auto dir = shared_dir();
  if (dir.empty()) {
    MESSAGE("skipped: no shared goldens");
    return;
  }
  std::ifstream file(dir / "goldens" / "optim" / "adamw.json");
  const nlohmann::json golden = nlohmann::json::parse(file);
  for (const Isa isa : available_isas()) {
    CpuContext context(1, isa);
    GuardedMatrix p(DType::kF32, 1, 5), g(DType::kF32, 1, 5), m(DType::kF32, 1, 5),
        v(DType::kF32, 1, 5);
    for (int i = 0; i < 5; ++i) {
      set_element(p.view(), 0, i, golden["start"][static_cast<std::size_t>(i)].get<double>());
      set_element(m.view(), 0, i, 0.0);
      set_element(v.view(), 0, i, 0.0);
    }
    std::int64_t step = 0;
    for (const auto& row : golden["steps"]) {
      for (std::size_t i = 0; i < 5; ++i) {
        set_element(g.view(), 0, static_cast<std::int64_t>(i), row["grad"][i].get<double>());
      }
      const AdamWItem item{p.view(), g.view(), m.view(), v.view(), golden["lr"], 0.01, ++step};
      run(context, AdamW{{&item, 1}, 0.9, 0.999, 1e-8});
      for (std::size_t i = 0; i < 5; ++i) {
        INFO("step ", step, ", element ", i);
        CHECK(p.view().as<float>()[i] == row["param"][i].get<float>());
        CHECK(m.view().as<float>()[i] == row["exp_avg"][i].get<float>());
        CHECK(v.view().as<float>()[i] == row["exp_avg_sq"][i].get<float>());
      }
    }
    CHECK(step > 1);
  }
}

TEST_CASE("adamw refuses operands that do not fit") {
  Parameter a(DType::kF32, 3, 5, 1), b(DType::kF32, 5, 3, 1), half(DType::kBF16, 1, 1, 1);
  AdamWItem item = a.item(1e-3, 0.0, 0);
  CHECK_THROWS_WITH_AS(check(AdamW{{&item, 1}}), "adamw: step of item 0 is 0, need at least 1",
                       std::invalid_argument);
  item.step = 1;
  check(AdamW{{&item, 1}});
  item.grad = b.grad.view();
  CHECK_THROWS_WITH_AS(check(AdamW{{&item, 1}}), "adamw: grad of item 0 is [5, 3], need [3, 5]",
                       std::invalid_argument);
  item = half.item(1e-3, 0.0, 1);
  CHECK_THROWS_WITH_AS(check(AdamW{{&item, 1}}), "adamw: param of item 0 is BF16, need F32 or F64",
                       std::invalid_argument);
}

}  // namespace ds::test
