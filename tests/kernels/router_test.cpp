#include "kernels/router.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"
#include "tests/support/gradcheck.h"

namespace ds::test {
namespace {

using kernels::RouterBackward;
using kernels::RouterForward;
using kernels::RouterSettings;
using kernels::Scoring;
using kernels::TopkMethod;

struct Kind {
  RouterSettings settings;
  std::int64_t experts;
  bool bias;
};
const Kind kKinds[] = {
    {{Scoring::kSigmoid, TopkMethod::kNoauxTc, 1, 1, 1, true, 2.5}, 1, false},
    {{Scoring::kSigmoid, TopkMethod::kNoauxTc, 8, 4, 8, true, 2.5}, 256, true},
    {{Scoring::kSigmoid, TopkMethod::kNoauxTc, 1, 1, 6, true, 2.446}, 37, true},
    {{Scoring::kSoftmax, TopkMethod::kGroupLimitedGreedy, 8, 3, 6, false, 16.0}, 160, false},
    {{Scoring::kSoftmax, TopkMethod::kGreedy, 1, 1, 6, false, 1.0}, 67, false},
    {{Scoring::kSoftmax, TopkMethod::kGreedy, 1, 1, 2, true, 1.0}, 9, false},
};

// Reference: plain sorting. Stable, so that ties go to the lowest index.
struct Expected {
  Mat scores, experts, weights;
};
std::vector<std::int64_t> best(const std::vector<double>& values, int count) {
  std::vector<std::int64_t> order;
  for (std::size_t i = 0; i < values.size(); ++i) order.push_back(static_cast<std::int64_t>(i));
  std::stable_sort(order.begin(), order.end(), [&](std::int64_t a, std::int64_t b) {
    return values[static_cast<std::size_t>(a)] > values[static_cast<std::size_t>(b)];
  });
  order.resize(static_cast<std::size_t>(count));
  return order;
}
Expected reference(const Kind& kind, const Mat& z, const Mat& bias) {
  const RouterSettings& s = kind.settings;
  const std::int64_t n = kind.experts;
  Expected e{Mat(z.rows, n), Mat(z.rows, s.top_k), Mat(z.rows, s.top_k)};
  for (std::int64_t t = 0; t < z.rows; ++t) {
    std::vector<double> choice;
    double largest = -HUGE_VAL, total = 0.0;
    for (std::int64_t i = 0; i < n; ++i) largest = std::max(largest, z(t, i));
    for (std::int64_t i = 0; i < n; ++i) total += std::exp(z(t, i) - largest);
    for (std::int64_t i = 0; i < n; ++i) {
      e.scores(t, i) = s.scoring == Scoring::kSigmoid ? 1.0 / (1.0 + std::exp(-z(t, i)))
                                                      : std::exp(z(t, i) - largest) / total;
      choice.push_back(e.scores(t, i) + (kind.bias ? bias(0, i) : 0.0));
    }
    if (s.method != TopkMethod::kGreedy && s.groups > 1) {
      const std::int64_t size = n / s.groups;
      std::vector<double> groups;
      for (int g = 0; g < s.groups; ++g) {
        std::vector<double> own(choice.begin() + g * size, choice.begin() + (g + 1) * size);
        std::sort(own.rbegin(), own.rend());
        groups.push_back(s.method == TopkMethod::kNoauxTc ? own[0] + own[1] : own[0]);
      }
      const auto kept = best(groups, s.kept_groups);
      for (std::int64_t i = 0; i < n; ++i) {
        if (std::find(kept.begin(), kept.end(), i / size) == kept.end()) {
          choice[static_cast<std::size_t>(i)] = -HUGE_VAL;
        }
      }
    }
    const auto chosen = best(choice, s.top_k);
    double sum = 0.0;
    for (const std::int64_t i : chosen) sum += e.scores(t, i);
    for (int k = 0; k < s.top_k; ++k) {
      const std::int64_t i = chosen[static_cast<std::size_t>(k)];
      e.experts(t, k) = static_cast<double>(i);
      e.weights(t, k) = e.scores(t, i) / (s.normalise ? sum + 1e-20 : 1.0) * s.scale;
    }
  }
  return e;
}

}  // namespace

void parity(Of<RouterForward>) {
  for (const Kind& kind : kKinds) {
    for (const std::int64_t tokens : {1, 33}) {
      for_settings({DType::kF64, DType::kF32}, [&](const Setting& s) {
        CpuContext context = s.context();
        GuardedMatrix logits = random_matrix(s.dtype, tokens, kind.experts, s.gap, 5, 2.0);
        GuardedMatrix bias = random_matrix(s.dtype, 1, kind.experts, 0, 6, 0.3);
        GuardedMatrix scores(s.dtype, tokens, kind.experts, s.gap);
        GuardedMatrix experts(DType::kI32, tokens, kind.settings.top_k, s.gap);
        GuardedMatrix weights(s.dtype, tokens, kind.settings.top_k, s.gap);
        RouterForward op{kind.settings, logits.view(),  {},
                         scores.view(), experts.view(), weights.view()};
        if (kind.bias) op.bias = bias.vector();
        check(op);
        run(context, op);
        const Expected want = reference(kind, Mat(logits.view()), Mat(bias.view()));
        expect_close(scores.view(), want.scores, tolerance_for(s.dtype, kind.experts));
        expect_close(experts.view(), want.experts, exactly());
        expect_close(weights.view(), want.weights, tolerance_for(s.dtype, 16));
        CHECK(scores.intact());
        CHECK(experts.intact());
        CHECK(weights.intact());
      });
    }
  }
}

void parity(Of<RouterBackward>) {
  for (const Kind& kind : kKinds) {
    const std::int64_t tokens = 33;
    const int k = kind.settings.top_k;
    for_settings({DType::kF32}, [&](const Setting& s) {
      CpuContext context = s.context();
      GuardedMatrix logits = random_matrix(s.dtype, tokens, kind.experts, s.gap, 5, 2.0);
      GuardedMatrix scores(s.dtype, tokens, kind.experts, s.gap), experts(DType::kI32, tokens, k);
      GuardedMatrix weights(s.dtype, tokens, k), d(s.dtype, tokens, kind.experts, s.gap);
      GuardedMatrix d_weights = random_matrix(s.dtype, tokens, k, s.gap, 7);
      run(context,
          RouterForward{
              kind.settings, logits.view(), {}, scores.view(), experts.view(), weights.view()});
      const RouterBackward op{kind.settings, scores.view(), experts.view(), d_weights.view(),
                              d.view()};
      check(op);
      run(context, op);
      // The F64 kernel, which the gradient check vouches for, on the same values.
      GuardedMatrix wide_scores = widened(scores.view()), wide_up = widened(d_weights.view());
      GuardedMatrix want(DType::kF64, tokens, kind.experts);
      run(context, RouterBackward{kind.settings, wide_scores.view(), experts.view(), wide_up.view(),
                                  want.view()});
      expect_close(d.view(), Mat(want.view()), tolerance_for(s.dtype, kind.experts, 2.0));
      CHECK(d.intact());
    });
  }
}

void gradient(Of<RouterBackward>) {
  CpuContext context(1, kernels::detect_isa());
  for (const Kind& kind : kKinds) {
    const std::int64_t tokens = 3;
    const int k = kind.settings.top_k;
    GuardedMatrix logits = random_matrix(DType::kF64, tokens, kind.experts, 0, 5, 2.0);
    GuardedMatrix bias = random_matrix(DType::kF64, 1, kind.experts, 0, 6, 0.3);
    GuardedMatrix scores(DType::kF64, tokens, kind.experts), experts(DType::kI32, tokens, k);
    GuardedMatrix weights(DType::kF64, tokens, k), d(DType::kF64, tokens, kind.experts);
    GuardedMatrix d_weights = random_matrix(DType::kF64, tokens, k, 0, 7);
    RouterForward forward{kind.settings, logits.view(),  {},
                          scores.view(), experts.view(), weights.view()};
    if (kind.bias) forward.bias = bias.vector();
    run(context, forward);
    run(context,
        RouterBackward{kind.settings, scores.view(), experts.view(), d_weights.view(), d.view()});
    const auto chosen = experts.bytes();
    const Comparison c = check_gradient(logits.view(), d.view(), [&] {
      run(context, forward);
      REQUIRE(chosen == experts.bytes());  // a step that changes the choice would prove nothing
      return inner(weights.view(), d_weights.view());
    });
    CHECK_MESSAGE(c.ok, kind.experts, " experts: ", c.text);
  }
}

TEST_CASE("router: ties go to the lowest index, dropped groups never win") {
  for (const Isa isa : available_isas()) {
    CpuContext context(1, isa);
    GuardedMatrix logits(DType::kF32, 1, 8), bias(DType::kF32, 1, 8), scores(DType::kF32, 1, 8);
    GuardedMatrix experts(DType::kI32, 1, 2), weights(DType::kF32, 1, 2);
    RouterForward op{{Scoring::kSigmoid, TopkMethod::kNoauxTc, 2, 1, 2, true, 1.0},
                     logits.view(),
                     bias.vector(),
                     scores.view(),
                     experts.view(),
                     weights.view()};
    fill(logits.view(), 0.0);
    fill(bias.view(), 0.0);
    run(context, op);
    CHECK(experts.view().as<std::int32_t>()[0] == 0);
    CHECK(experts.view().as<std::int32_t>()[1] == 1);
    CHECK(weights.view().as<float>()[0] == 0.5f);
    // Every biased score negative: with a mask of 0 the dropped group would win.
    for (int i = 0; i < 8; ++i) bias.view().as<float>()[i] = i < 4 ? -9.0f : -5.0f;
    run(context, op);
    CHECK(experts.view().as<std::int32_t>()[0] == 4);
    CHECK(experts.view().as<std::int32_t>()[1] == 5);
    // Minus infinity and NaN everywhere: still two different experts.
    for (const float value : {-HUGE_VALF, std::nanf("")}) {
      fill(bias.view(), value);
      run(context, op);
      const std::int32_t* got = experts.view().as<std::int32_t>();
      CHECK(std::set<std::int32_t>{got[0], got[1]} == std::set<std::int32_t>{0, 1});
    }
  }
}

TEST_CASE("router refuses settings that cannot work") {
  GuardedMatrix logits = random_matrix(DType::kF32, 1, 8, 0, 1), scores(DType::kF32, 1, 8);
  GuardedMatrix experts(DType::kI32, 1, 5), weights(DType::kF32, 1, 5);
  RouterForward op{{Scoring::kSigmoid, TopkMethod::kNoauxTc, 2, 1, 5, true, 1.0},
                   logits.view(),
                   {},
                   scores.view(),
                   experts.view(),
                   weights.view()};
  CHECK_THROWS_WITH_AS(check(op), "router_forward: top_k is 5, but only 4 experts can be chosen",
                       std::invalid_argument);
  op.settings.groups = 3;
  CHECK_THROWS_WITH_AS(check(op), "router_forward: 8 experts do not divide into 3 groups",
                       std::invalid_argument);
  op.settings.groups = 8;
  CHECK_THROWS_AS(check(op), std::invalid_argument);  // one expert a group
  op.settings = {Scoring::kSigmoid, TopkMethod::kNoauxTc, 2, 3, 2, true, 1.0};
  CHECK_THROWS_AS(check(op), std::invalid_argument);
}

}  // namespace ds::test
