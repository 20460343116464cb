// Reductions whose result does not depend on the number of threads.
#pragma once

#include <span>

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// y[col] += sum over rows of x[row, col] * (z ? z[row, col] : 1): bias gradients, DoRA magnitudes.
struct ColumnSum {
  static constexpr std::string_view kName = "column_sum";
  ConstView x;  // [rows, cols] compute dtype
  ConstView z;  // optional [rows, cols]
  View y;       // [cols] statistics dtype
};
void check(const ColumnSum& op);
Cost cost(const ColumnSum& op);
void run(CpuContext& context, const ColumnSum& op);

// y[row] = sum over cols of (x[row, col] * scale)^2 : DoRA's weight norms. x may be any dtype Cast
// reads.
struct RowSquaredNorm {
  static constexpr std::string_view kName = "row_squared_norm";
  ConstView x;      // [rows, cols]
  ConstView scale;  // optional FP8 block scales, as in Cast
  View y;           // [rows] F32 or F64
};
void check(const RowSquaredNorm& op);
Cost cost(const RowSquaredNorm& op);
void run(CpuContext& context, const RowSquaredNorm& op);

// out[i] = sum of squares of tensors[i], in f64. NaN and infinity propagate.
struct SquaredNorm {
  static constexpr std::string_view kName = "squared_norm";
  std::span<const ConstView> tensors;  // F32 or F64, contiguous
  std::span<double> out;
};
void check(const SquaredNorm& op);
Cost cost(const SquaredNorm& op);
void run(CpuContext& context, const SquaredNorm& op);

// count[0] = how many elements of x are infinite or NaN.
struct CountNonFinite {
  static constexpr std::string_view kName = "count_non_finite";
  ConstView x;  // [rows, cols] F32, BF16, F16, F8_E4M3 (which has NaN only)
  View count;   // [1] I64
};
void check(const CountNonFinite& op);
Cost cost(const CountNonFinite& op);
void run(CpuContext& context, const CountNonFinite& op);

}  // namespace ds::kernels
