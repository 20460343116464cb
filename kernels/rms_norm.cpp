#include "kernels/rms_norm.h"

#include "kernels/op_check.h"

namespace ds::kernels {

void check(const RmsNormForward& op) {
  const auto name = op.kName;
  op_check::compute(name, "x", op.x);
  const std::int64_t tokens = op.x.rows();
  const std::int64_t dim = op.x.cols();
  op_check::at_least(name, "dim", dim, 1);
  const DType statistics = statistics_dtype(op.x.dtype());
  op_check::vector(name, "weight", op.weight, dim, statistics);
  op_check::matrix(name, "y", op.y, tokens, dim, op.x.dtype());
  op_check::vector(name, "rstd", op.rstd, tokens, statistics);
  if (!(op.eps >= 0.0)) op_check::fail(name, "eps is " + std::to_string(op.eps) + ", need >= 0");
}

Cost cost(const RmsNormForward& op) {
  return {4.0 * static_cast<double>(op.x.size()),
          op_check::bytes(op.x) + op_check::bytes(op.weight) + op_check::bytes(op.y) +
              op_check::bytes(op.rstd)};
}

void check(const RmsNormBackward& op) {
  const auto name = op.kName;
  op_check::compute(name, "x", op.x);
  const std::int64_t tokens = op.x.rows();
  const std::int64_t dim = op.x.cols();
  op_check::at_least(name, "dim", dim, 1);
  const DType statistics = statistics_dtype(op.x.dtype());
  op_check::matrix(name, "dy", op.dy, tokens, dim, op.x.dtype());
  op_check::vector(name, "weight", op.weight, dim, statistics);
  op_check::vector(name, "rstd", op.rstd, tokens, statistics);
  op_check::matrix(name, "dx", op.dx, tokens, dim, op.x.dtype());
  if (op.dweight) op_check::vector(name, "dweight", op.dweight, dim, statistics);
}

Cost cost(const RmsNormBackward& op) {
  const double elements = static_cast<double>(op.x.size());
  return {(op.dweight ? 11.0 : 8.0) * elements,
          op_check::bytes(op.dy) + op_check::bytes(op.x) + op_check::bytes(op.weight) +
              op_check::bytes(op.rstd) + op_check::bytes(op.dx) * (op.accumulate_dx ? 2.0 : 1.0) +
              2.0 * op_check::bytes(op.dweight)};
}

}  // namespace ds::kernels
