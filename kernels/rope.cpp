#include "kernels/rope.h"

#include "kernels/op_check.h"

namespace ds::kernels {

void check(const Rope& op) {
  const auto name = op.kName;
  op_check::compute(name, "x", op.x);
  const DType statistics = statistics_dtype(op.x.dtype());
  op_check::vector(name, "positions", op.positions, op.x.rows(), DType::kI32);
  op_check::dtype(name, "cos", op.cos, statistics);
  op_check::matrix(name, "sin", op.sin, op.cos.rows(), op.cos.cols(), statistics);
  op_check::at_least(name, "heads", op.heads, 1);
  op_check::at_least(name, "offset", op.offset, 0);
  const std::int64_t end = op.offset + 2 * op.cos.cols();
  if (op.heads > 1) op_check::at_least(name, "head_stride", op.head_stride, end);
  const std::int64_t needed = (op.heads - 1) * op.head_stride + end;
  if (op.x.cols() < needed) {
    op_check::fail(name, "x has " + std::to_string(op.x.cols()) + " columns, need at least " +
                             std::to_string(needed) + " for " + std::to_string(op.heads) +
                             " heads of stride " + std::to_string(op.head_stride));
  }
}

Cost cost(const Rope& op) {
  const double pairs =
      static_cast<double>(op.x.rows()) * op.heads * static_cast<double>(op.cos.cols());
  const double tables = 2.0 * static_cast<double>(op.x.rows() * op.cos.cols());
  return {6.0 * pairs, 4.0 * pairs * dtype_bits(op.x.dtype()) / 8.0 +
                           tables * dtype_bits(op.cos.dtype()) / 8.0 +
                           op_check::bytes(op.positions)};
}

}  // namespace ds::kernels
