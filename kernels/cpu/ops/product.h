// F32 matrix products of one thread, with operands of any dtype.
#pragma once

#include <cstdint>

#include "kernels/view.h"

namespace ds::kernels::DSK_ISA {

// One operand: element (i, p), p along the sum, is stored at row first + i, column p of a matrix
// when `depth_last`, else at row p, column first + i.
struct ProductSide {
  const void* data = nullptr;
  DType dtype = DType::kF32;  // F32, BF16, F16 or F8_E4M3
  std::int64_t stride = 0;    // elements between rows
  bool depth_last = true;
  std::int64_t first = 0;
  const ConstView* scale = nullptr;  // F8_E4M3 only, as GemmProblem::b_scale
  std::int64_t scale_row0 = 0;       // GemmProblem::b_row0
};

// c [m, n] = alpha * sum over p of a(i, p) b(j, p), plus c when `add`; m, n, k > 0.
struct Product {
  std::int64_t m, n, k;
  ProductSide a, b;
  float alpha;
  bool add;
  float* c;
  std::int64_t c_stride;
};

// The side with fewer rows is packed; where that is a, c is computed transposed, so that the rows
// of a weight are read where they lie. Narrow operands are widened a block at a time. An element is
// the same whatever m, n and its place are: sums run over blocks of k that depend on k only.
// `scratch` holds product_floats(m, n, k) floats (cpu/gemm_plan.h) and is 64-byte aligned.
void multiply(const Product& product, float* scratch);

}  // namespace ds::kernels::DSK_ISA
