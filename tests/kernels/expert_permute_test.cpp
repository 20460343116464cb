#include "kernels/expert_permute.h"

#include <algorithm>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"

namespace ds::test {
namespace {

using kernels::CombineRows;
using kernels::ExpertPlan;
using kernels::GatherRows;

struct Size {
  std::int64_t rows, dim, taken;
};
constexpr Size kSizes[] = {{1, 1, 1}, {5, 37, 9}, {31, 301, 67}, {3, 2500, 20}};

}  // namespace

void parity(Of<ExpertPlan>) {
  for (const std::int64_t tokens : {0, 1, 7, 1000}) {
    const std::int64_t count = 11, top_k = 3;
    CpuContext context(2, kernels::detect_isa());
    GuardedMatrix experts = index_matrix(tokens, top_k, count - 1, 1);  // the last one idles
    GuardedMatrix offsets(DType::kI32, 1, count + 1);
    GuardedMatrix token(DType::kI32, 1, tokens * top_k), entry(DType::kI32, 1, tokens * top_k);
    GuardedMatrix slot(DType::kI32, tokens, top_k, 2);
    const ExpertPlan op{experts.view(), offsets.vector(), token.vector(), entry.vector(),
                        slot.view()};
    check(op);
    run(context, op);
    std::vector<std::int64_t> order;  // entries, stably sorted by expert
    const Mat chosen(experts.view());
    for (std::int64_t e = 0; e < tokens * top_k; ++e) order.push_back(e);
    const auto expert_of = [&](std::int64_t e) { return chosen(e / top_k, e % top_k); };
    std::stable_sort(order.begin(), order.end(),
                     [&](std::int64_t a, std::int64_t b) { return expert_of(a) < expert_of(b); });
    for (std::int64_t e = 0; e <= count; ++e) {
      const auto below = std::count_if(order.begin(), order.end(), [&](std::int64_t x) {
        return expert_of(x) < static_cast<double>(e);
      });
      CHECK(element(offsets.view(), 0, e) == static_cast<double>(below));
    }
    for (std::size_t i = 0; i < order.size(); ++i) {
      const auto at = static_cast<std::int64_t>(i);
      CHECK(element(token.view(), 0, at) == static_cast<double>(order[i] / top_k));
      CHECK(element(entry.view(), 0, at) == static_cast<double>(order[i]));
      CHECK(element(slot.view(), order[i] / top_k, order[i] % top_k) == static_cast<double>(i));
    }
    CHECK(offsets.intact());
    CHECK(token.intact());
    CHECK(entry.intact());
    CHECK(slot.intact());
  }
}

void parity(Of<GatherRows>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      CpuContext context = s.context();
      GuardedMatrix x = random_matrix(s.dtype, size.rows, size.dim, s.gap, 1);
      GuardedMatrix index = index_matrix(1, size.taken, size.rows, 2);
      GuardedMatrix y(s.dtype, size.taken, size.dim, s.gap);
      const GatherRows op{x.view(), index.vector(), y.view()};
      check(op);
      run(context, op);
      const Mat in(x.view()), at(index.view());
      Mat want(size.taken, size.dim);
      for (std::int64_t r = 0; r < size.taken; ++r) {
        for (std::int64_t i = 0; i < size.dim; ++i) {
          want(r, i) = in(static_cast<std::int64_t>(at(0, r)), i);
        }
      }
      expect_close(y.view(), want, exactly());
      CHECK(y.intact());
    });
  }
}

void parity(Of<CombineRows>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      for (const bool accumulate : {false, true}) {
        for (const DType from : {DType::kF64, DType::kF32, DType::kBF16}) {
          if ((from == DType::kF64) != (s.dtype == DType::kF64)) continue;
          CpuContext context = s.context();
          const std::int64_t k = 3;
          GuardedMatrix x = random_matrix(from, size.rows, size.dim, s.gap, 1);
          GuardedMatrix index = index_matrix(size.taken, k, size.rows, 2);
          GuardedMatrix y = random_matrix(s.dtype, size.taken, size.dim, s.gap, 3);
          const Mat in(x.view()), at(index.view());
          Mat want(y.view());
          for (std::int64_t r = 0; r < size.taken; ++r) {
            for (std::int64_t i = 0; i < size.dim; ++i) {
              double sum = accumulate ? want(r, i) : 0.0;
              for (std::int64_t j = 0; j < k; ++j) {
                sum += in(static_cast<std::int64_t>(at(r, j)), i);
              }
              want(r, i) = sum;
            }
          }
          const CombineRows op{x.view(), index.view(), y.view(), accumulate};
          check(op);
          run(context, op);
          expect_close(y.view(), want, tolerance_for(s.dtype, k + 1));
          CHECK(y.intact());
        }
      }
    });
  }
}

TEST_CASE("expert permutation refuses bad indices") {
  CpuContext context(1, kernels::detect_isa());
  GuardedMatrix experts = index_vector({0, 3}), offsets(DType::kI32, 1, 4);
  GuardedMatrix token(DType::kI32, 1, 2), entry(DType::kI32, 1, 2), slot(DType::kI32, 1, 2);
  const ExpertPlan plan{experts.view(), offsets.vector(), token.vector(), entry.vector(),
                        slot.view()};
  check(plan);
  CHECK_THROWS_WITH_AS(run(context, plan), "expert_plan: experts[1] is 3, need 0 <= index < 3",
                       std::invalid_argument);
  GuardedMatrix x = random_matrix(DType::kF32, 3, 4, 0, 1), y(DType::kF32, 2, 4);
  GuardedMatrix index = index_vector({-1, 0});
  CHECK_THROWS_AS(run(context, GatherRows{x.view(), index.vector(), y.view()}),
                  std::invalid_argument);
  CHECK_THROWS_AS(run(context, CombineRows{x.view(), index.view().reshape({2, 1}), y.view()}),
                  std::invalid_argument);
  GuardedMatrix wide(DType::kF64, 2, 4);
  CHECK_THROWS_AS(check(CombineRows{x.view(), index.view().reshape({2, 1}), wide.view()}),
                  std::invalid_argument);
}

}  // namespace ds::test
