#include "kernels/rope.h"

#include <cmath>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"

namespace ds::test {
namespace {

using kernels::Rope;

struct Tables {
  GuardedMatrix cosine, sine;
  Tables(DType dtype, std::int64_t positions, std::int64_t pairs)
      : cosine(dtype, positions, pairs), sine(dtype, positions, pairs) {
    for (std::int64_t p = 0; p < positions; ++p) {
      for (std::int64_t i = 0; i < pairs; ++i) {
        const double angle = static_cast<double>(p) / std::pow(10.0, static_cast<double>(i));
        set_element(cosine.view(), p, i, std::cos(angle));
        set_element(sine.view(), p, i, std::sin(angle));
      }
    }
  }
};

}  // namespace

void parity(Of<Rope>) {
  struct Size {
    std::int64_t tokens, pairs, stride, offset;
    int heads;
  };
  for (const Size size : {Size{1, 1, 2, 0, 1}, Size{3, 5, 17, 6, 3}, Size{90, 16, 40, 8, 12}}) {
    for_settings([&](const Setting& s) {
      for (const bool interleaved : {false, true}) {
        for (const bool inverse : {false, true}) {
          CpuContext context = s.context();
          GuardedMatrix x =
              random_matrix(s.dtype, size.tokens, size.heads * size.stride + 1, s.gap, 1);
          GuardedMatrix positions = index_matrix(1, size.tokens, 50, 2);
          Tables tables(s.statistics(), 50, size.pairs);
          Mat want(x.view());
          const Mat cosine(tables.cosine.view()), sine(tables.sine.view()), at(positions.view());
          for (std::int64_t t = 0; t < size.tokens; ++t) {
            const auto p = static_cast<std::int64_t>(at(0, t));
            for (std::int64_t h = 0; h < size.heads; ++h) {
              for (std::int64_t i = 0; i < size.pairs; ++i) {
                const std::int64_t head = h * size.stride + size.offset;
                double& a = want(t, head + (interleaved ? 2 * i : i));
                double& b = want(t, head + (interleaved ? 2 * i + 1 : i + size.pairs));
                const double sn = inverse ? -sine(p, i) : sine(p, i);
                const double rotated = a * cosine(p, i) - b * sn;
                b = b * cosine(p, i) + a * sn;
                a = rotated;
              }
            }
          }
          const Rope op{x.view(),           positions.vector(), tables.cosine.view(),
                        tables.sine.view(), size.heads,         size.stride,
                        size.offset,        interleaved,        inverse};
          check(op);
          run(context, op);
          expect_close(x.view(), want, tolerance_for(s.dtype, 2));
          CHECK(x.intact());
        }
      }
    });
  }
}

TEST_CASE("the inverse rotation undoes the rotation") {
  CpuContext context(1, kernels::detect_isa());
  GuardedMatrix x = random_matrix(DType::kF64, 7, 24, 0, 1);
  GuardedMatrix positions = index_matrix(1, 7, 50, 2);
  Tables tables(DType::kF64, 50, 4);
  const Mat before(x.view());
  Rope op{x.view(), positions.vector(), tables.cosine.view(), tables.sine.view(), 2, 12, 4};
  run(context, op);
  CHECK(Mat(x.view()).values != before.values);
  op.inverse = true;
  run(context, op);
  expect_close(x.view(), before, tolerance_for(DType::kF64, 4));
}

TEST_CASE("rope refuses operands that do not fit") {
  CpuContext context(1, kernels::detect_isa());
  GuardedMatrix x = random_matrix(DType::kF32, 2, 8, 0, 1);
  GuardedMatrix positions = index_vector({0, 50});
  Tables tables(DType::kF32, 50, 4);
  Rope op{x.view(), positions.vector(), tables.cosine.view(), tables.sine.view(), 1, 8, 0};
  check(op);
  CHECK_THROWS_WITH_AS(run(context, op), "rope: positions[1] is 50, need 0 <= index < 50",
                       std::invalid_argument);
  op.offset = 1;
  CHECK_THROWS_WITH_AS(check(op), "rope: x has 8 columns, need at least 9 for 1 heads of stride 8",
                       std::invalid_argument);
}

}  // namespace ds::test
