#include <doctest/doctest.h>

#include <string_view>

#include "tests/kernels/coverage.h"

namespace ds::test {
namespace {

struct Case {
  std::string_view op;
  void (*run)();
};

constexpr std::string_view kBackward = "Backward";

template <class Op>
void run_parity() {
  parity(Of<Op>{});
}
template <class Op, bool kHasGradient>
void run_gradient() {
  if constexpr (kHasGradient) gradient(Of<Op>{});
}

constexpr Case kParity[] = {
#define DSK_CPU_OP(op) {#op, run_parity<kernels::op>},
#define DSK_CPU_CUDA_OP(op) DSK_CPU_OP(op)
#include "kernels/ops.def"
#undef DSK_CPU_OP
};
constexpr Case kGradient[] = {
#define DSK_CPU_OP(op) {#op, run_gradient<kernels::op, std::string_view(#op).ends_with(kBackward)>},
#include "kernels/ops.def"
#undef DSK_CPU_OP
#undef DSK_CPU_CUDA_OP
};

TEST_CASE("every op agrees with its f64 reference") {
  for (const Case& c : kParity) {
    INFO("op ", c.op);
    c.run();
  }
}

TEST_CASE("every backward agrees with central differences") {
  int backwards = 0;
  for (const Case& c : kGradient) {
    if (!c.op.ends_with(kBackward)) continue;
    INFO("op ", c.op);
    c.run();
    ++backwards;
  }
  CHECK(backwards >= 6);
}

}  // namespace
}  // namespace ds::test
