// Matrix products, one or many at once, with an optional low-rank term.
#pragma once

#include <span>

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// One product: c = alpha * op(a) op(b) + beta * c + low_rank_a op(low_rank_b).
// Dtypes: a and c F32, BF16 or F64 (F64 only with all operands F64); b F32, BF16, F16, F64 or
// F8_E4M3 with `b_scale`. Narrow operands are widened to f32 tile by tile, never as a whole matrix,
// but for BF16 by BF16 where the CPU multiplies those (Isa::kAvx512Bf16); sums are f32 (f64 for
// F64) and c is rounded once at the end. beta must be 0 or 1; with beta 0, c is not read. Problems
// with M == 0 are skipped; K == 0 gives beta * c.
struct GemmProblem {
  ConstView a;        // [M, K]; [K, M] when trans_a
  ConstView b;        // [N, K] when trans_b (the layout of a checkpoint's weight), else [K, N]
  ConstView b_scale;  // F8_E4M3 only: [ceil(rows/128), ceil(cols/128)] of the WHOLE weight,
                      // multiplier per 128x128 block; F32, BF16 or F8_E8M0
  std::int64_t b_row0 = 0;  // row of the whole weight at which b begins (picks the scale block)
  View c;                   // [M, N]
  bool trans_a = false;
  bool trans_b = false;
  double alpha = 1.0;
  double beta = 0.0;
  ConstView low_rank_a;  // [M, r], optional, same dtype class as a
  ConstView low_rank_b;  // [N, r] when trans_b, else [r, N]; F32 or F64
};

// All problems of one call are independent: no c overlaps another operand of the call. Work is
// split over threads by tiles of all problems together, so many small products (experts) fill the
// machine as one large one does. Deterministic for a given number of threads.
struct Gemm {
  static constexpr std::string_view kName = "gemm";
  std::span<const GemmProblem> problems;
};
void check(const Gemm& op);
Cost cost(const Gemm& op);
void run(CpuContext& context, const Gemm& op);
void run(CudaContext& context, const Gemm& op);

}  // namespace ds::kernels
