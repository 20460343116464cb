// The parity cases of the matrix product and the cast that the op list asks for; their details are
// tested in gemm_test.cpp and cast_test.cpp.
#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"

namespace ds::test {

void parity(Of<kernels::Gemm>) {
  for_settings([](const Setting& s) {
    CpuContext context = s.context();
    GuardedMatrix a = random_matrix(s.dtype, 37, 53, s.gap, 1);
    GuardedMatrix b = random_matrix(s.dtype, 29, 53, s.gap, 2);
    GuardedMatrix c(s.dtype, 37, 29, s.gap);
    kernels::GemmProblem problem;
    problem.a = a.view();
    problem.b = b.view();
    problem.c = c.view();
    problem.trans_b = true;
    const kernels::Gemm op{std::span<const kernels::GemmProblem>(&problem, 1)};
    check(op);
    run(context, op);
    const Mat left(a.view()), right(b.view());
    Mat want(37, 29);
    for (std::int64_t i = 0; i < 37; ++i) {
      for (std::int64_t j = 0; j < 29; ++j) {
        for (std::int64_t k = 0; k < 53; ++k) want(i, j) += left(i, k) * right(j, k);
      }
    }
    expect_close(c.view(), want, tolerance_for(s.dtype, 53));
    CHECK(c.intact());
  });
}

void parity(Of<kernels::Cast>) {
  for_settings([](const Setting& s) {
    CpuContext context = s.context();
    GuardedMatrix src = random_matrix(DType::kF32, 67, 301, s.gap, 1);
    GuardedMatrix dst(s.dtype, 67, 301, s.gap);
    const kernels::Cast op{src.view(), {}, dst.view()};
    check(op);
    run(context, op);
    Mat want(src.view());
    for (double& value : want.values) value = rounded(s.dtype, value);
    expect_close(dst.view(), want, exactly());
    CHECK(dst.intact());
  });
}

}  // namespace ds::test
