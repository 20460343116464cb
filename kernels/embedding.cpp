#include "kernels/embedding.h"

#include "kernels/op_check.h"

namespace ds::kernels {

void check(const EmbeddingForward& op) {
  const auto name = op.kName;
  op_check::given(name, "table", op.table);
  if (!is_compute(op.table.dtype()) && op.table.dtype() != DType::kF16) {
    op_check::fail(name, "table is " + std::string(dtype_name(op.table.dtype())) +
                             ", need F32, BF16, F16 or F64");
  }
  op_check::vector(name, "ids", op.ids, op.ids.size(), DType::kI32);
  op_check::compute(name, "y", op.y);
  op_check::matrix(name, "y", op.y, op.ids.size(), op.table.cols());
}

Cost cost(const EmbeddingForward& op) {
  const double elements = static_cast<double>(op.y.size());
  return {0.0, elements * dtype_bits(op.table.dtype()) / 8.0 + op_check::bytes(op.ids) +
                   op_check::bytes(op.y)};
}

void check(const EmbeddingBackward& op) {
  const auto name = op.kName;
  op_check::compute(name, "dy", op.dy);
  op_check::vector(name, "ids", op.ids, op.dy.rows(), DType::kI32);
  op_check::dtype(name, "d_table", op.d_table, statistics_dtype(op.dy.dtype()));
  op_check::matrix(name, "d_table", op.d_table, op.d_table.rows(), op.dy.cols());
}

Cost cost(const EmbeddingBackward& op) {
  const double elements = static_cast<double>(op.dy.size());
  return {elements, op_check::bytes(op.dy) + op_check::bytes(op.ids) +
                        2.0 * elements * dtype_bits(op.d_table.dtype()) / 8.0};
}

}  // namespace ds::kernels
