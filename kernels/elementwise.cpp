#include "kernels/elementwise.h"

#include "kernels/op_check.h"

namespace ds::kernels {

void check(const AddScaled& op) {
  op_check::compute(op.kName, "x", op.x);
  op_check::compute(op.kName, "y", op.y);
  op_check::matrix(op.kName, "y", op.y, op.x.rows(), op.x.cols());
}

Cost cost(const AddScaled& op) {
  return {(op.accumulate ? 2.0 : 1.0) * static_cast<double>(op.x.size()),
          op_check::bytes(op.x) + op_check::bytes(op.y) * (op.accumulate ? 2.0 : 1.0)};
}

void check(const ScaleColumns& op) {
  op_check::compute(op.kName, "x", op.x);
  op_check::vector(op.kName, "factor", op.factor, op.x.cols(), statistics_dtype(op.x.dtype()));
  op_check::matrix(op.kName, "y", op.y, op.x.rows(), op.x.cols(), op.x.dtype());
}

Cost cost(const ScaleColumns& op) {
  return {static_cast<double>(op.x.size()),
          op_check::bytes(op.x) + op_check::bytes(op.factor) + op_check::bytes(op.y)};
}

void check(const Dropout& op) {
  op_check::compute(op.kName, "x", op.x);
  op_check::matrix(op.kName, "y", op.y, op.x.rows(), op.x.cols(), op.x.dtype());
  if (!(op.p >= 0.0 && op.p < 1.0)) {
    op_check::fail(op.kName, "p is " + std::to_string(op.p) + ", need 0 <= p < 1");
  }
}

Cost cost(const Dropout& op) {
  return {(op.accumulate ? 2.0 : 1.0) * static_cast<double>(op.x.size()),
          op_check::bytes(op.x) + op_check::bytes(op.y) * (op.accumulate ? 2.0 : 1.0)};
}

}  // namespace ds::kernels
