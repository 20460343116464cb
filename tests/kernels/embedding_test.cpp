#include "kernels/embedding.h"

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"
#include "tests/support/gradcheck.h"

namespace ds::test {
namespace {

using kernels::EmbeddingBackward;
using kernels::EmbeddingForward;

struct Size {
  std::int64_t tokens, vocab, dim;
};
constexpr Size kSizes[] = {{1, 1, 1}, {7, 5, 37}, {67, 11, 301}};

}  // namespace

void parity(Of<EmbeddingForward>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      for (const DType stored : {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
        CpuContext context = s.context();
        GuardedMatrix table = random_matrix(stored, size.vocab, size.dim, s.gap, 1);
        GuardedMatrix ids = index_matrix(1, size.tokens, size.vocab, 2);
        GuardedMatrix y(s.dtype, size.tokens, size.dim, s.gap);
        const EmbeddingForward op{table.view(), ids.vector(), y.view()};
        check(op);
        run(context, op);
        const Mat rows(table.view()), at(ids.view());
        Mat want(size.tokens, size.dim);
        for (std::int64_t t = 0; t < size.tokens; ++t) {
          for (std::int64_t i = 0; i < size.dim; ++i) {
            want(t, i) = rounded(s.dtype, rows(static_cast<std::int64_t>(at(0, t)), i));
          }
        }
        expect_close(y.view(), want, exactly());
        CHECK(y.intact());
      }
    });
  }
}

void parity(Of<EmbeddingBackward>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      CpuContext context = s.context();
      GuardedMatrix dy = random_matrix(s.dtype, size.tokens, size.dim, s.gap, 1);
      GuardedMatrix ids = index_matrix(1, size.tokens, size.vocab, 2);
      GuardedMatrix d = random_matrix(s.statistics(), size.vocab, size.dim, s.gap, 3);
      GuardedMatrix again = random_matrix(s.statistics(), size.vocab, size.dim, s.gap, 3);
      const Mat up(dy.view()), at(ids.view());
      Mat want(d.view());
      for (std::int64_t t = 0; t < size.tokens; ++t) {
        for (std::int64_t i = 0; i < size.dim; ++i) {
          want(static_cast<std::int64_t>(at(0, t)), i) += up(t, i);
        }
      }
      const EmbeddingBackward op{dy.view(), ids.vector(), d.view()};
      check(op);
      run(context, op);
      expect_close(d.view(), want, tolerance_for(s.statistics(), size.tokens));
      CHECK(d.intact());
      CpuContext other(3 - s.threads, s.isa);  // the other number of threads: the same bits
      run(other, EmbeddingBackward{dy.view(), ids.vector(), again.view()});
      CHECK(d.bytes() == again.bytes());
    });
  }
}

void gradient(Of<EmbeddingBackward>) {
  CpuContext context(1, kernels::detect_isa());
  GuardedMatrix table = random_matrix(DType::kF64, 4, 3, 0, 1);
  GuardedMatrix ids = index_vector({2, 0, 2, 2, 3});
  GuardedMatrix dy = random_matrix(DType::kF64, 5, 3, 0, 2);
  GuardedMatrix y(DType::kF64, 5, 3), d(DType::kF64, 4, 3);
  fill(d.view(), 0.0);
  run(context, EmbeddingBackward{dy.view(), ids.vector(), d.view()});
  const Comparison c = check_gradient(table.view(), d.view(), [&] {
    run(context, EmbeddingForward{table.view(), ids.vector(), y.view()});
    return inner(y.view(), dy.view());
  });
  CHECK_MESSAGE(c.ok, c.text);
}

TEST_CASE("embedding refuses ids outside the table") {
  CpuContext context(1, kernels::detect_isa());
  GuardedMatrix table = random_matrix(DType::kF32, 4, 3, 0, 1);
  GuardedMatrix y(DType::kF32, 2, 3);
  for (const std::int32_t id : {-1, 4, INT32_MIN, INT32_MAX}) {
    GuardedMatrix ids = index_vector({0, id});
    CHECK_THROWS_AS(run(context, EmbeddingForward{table.view(), ids.vector(), y.view()}),
                    std::invalid_argument);
    CHECK_THROWS_AS(run(context, EmbeddingBackward{y.view(), ids.vector(), table.view()}),
                    std::invalid_argument);
  }
  GuardedMatrix ids = index_vector({0, 1, 2});
  CHECK_THROWS_WITH_AS(check(EmbeddingForward{table.view(), ids.vector(), y.view()}),
                       "embedding_forward: y is [2, 3], need [3, 3]", std::invalid_argument);
}

}  // namespace ds::test
