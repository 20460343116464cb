#include "kernels/swiglu.h"

#include "kernels/op_check.h"

namespace ds::kernels {

void check(const SwigluForward& op) {
  const auto name = op.kName;
  op_check::compute(name, "y", op.y);
  op_check::matrix(name, "gate_up", op.gate_up, op.y.rows(), 2 * op.y.cols(), op.y.dtype());
  if (op.row_weight) {
    op_check::vector(name, "row_weight", op.row_weight, op.y.rows(),
                     statistics_dtype(op.y.dtype()));
  }
}

Cost cost(const SwigluForward& op) {
  return {6.0 * static_cast<double>(op.y.size()),
          op_check::bytes(op.gate_up) + op_check::bytes(op.row_weight) + op_check::bytes(op.y)};
}

void check(const SwigluBackward& op) {
  const auto name = op.kName;
  op_check::compute(name, "dy", op.dy);
  const std::int64_t rows = op.dy.rows();
  const std::int64_t width = op.dy.cols();
  const DType dtype = op.dy.dtype();
  op_check::matrix(name, "gate_up", op.gate_up, rows, 2 * width, dtype);
  op_check::matrix(name, "d_gate_up", op.d_gate_up, rows, 2 * width, dtype);
  if (static_cast<bool>(op.row_weight) != static_cast<bool>(op.d_row_weight)) {
    op_check::fail(name, "row_weight and d_row_weight must be given together");
  }
  if (op.row_weight) {
    op_check::vector(name, "row_weight", op.row_weight, rows, statistics_dtype(dtype));
    op_check::vector(name, "d_row_weight", op.d_row_weight, rows, statistics_dtype(dtype));
  }
}

Cost cost(const SwigluBackward& op) {
  return {(op.row_weight ? 15.0 : 12.0) * static_cast<double>(op.dy.size()),
          op_check::bytes(op.dy) + op_check::bytes(op.gate_up) + op_check::bytes(op.row_weight) +
              op_check::bytes(op.d_gate_up) + op_check::bytes(op.d_row_weight)};
}

}  // namespace ds::kernels
