#include "kernels/expert_permute.h"

#include "kernels/op_check.h"

namespace ds::kernels {

void check(const ExpertPlan& op) {
  const auto name = op.kName;
  op_check::dtype(name, "experts", op.experts, DType::kI32);
  const std::int64_t tokens = op.experts.rows();
  const std::int64_t top_k = op.experts.cols();
  op_check::dtype(name, "offsets", op.offsets, DType::kI32);
  op_check::at_least(name, "number of offsets", op.offsets.size(), 2);
  op_check::vector(name, "offsets", op.offsets, op.offsets.size());
  op_check::vector(name, "slot_token", op.slot_token, tokens * top_k, DType::kI32);
  op_check::vector(name, "slot_entry", op.slot_entry, tokens * top_k, DType::kI32);
  op_check::matrix(name, "entry_slot", op.entry_slot, tokens, top_k, DType::kI32);
  if (tokens * top_k > INT32_MAX) {
    op_check::fail(name, std::to_string(tokens * top_k) + " entries do not fit I32");
  }
}

Cost cost(const ExpertPlan& op) {
  return {0.0, 2.0 * op_check::bytes(op.experts) + op_check::bytes(op.offsets) +
                   op_check::bytes(op.slot_token) + op_check::bytes(op.slot_entry) +
                   op_check::bytes(op.entry_slot)};
}

void check(const GatherRows& op) {
  const auto name = op.kName;
  op_check::compute(name, "x", op.x);
  op_check::dtype(name, "index", op.index, DType::kI32);
  op_check::vector(name, "index", op.index, op.index.size());
  op_check::matrix(name, "y", op.y, op.index.size(), op.x.cols(), op.x.dtype());
}

Cost cost(const GatherRows& op) {
  return {0.0, 2.0 * op_check::bytes(op.y) + op_check::bytes(op.index)};
}

void check(const CombineRows& op) {
  const auto name = op.kName;
  op_check::compute(name, "x", op.x);
  op_check::compute(name, "y", op.y);
  if ((op.x.dtype() == DType::kF64) != (op.y.dtype() == DType::kF64)) {
    op_check::fail(name, "x is " + std::string(dtype_name(op.x.dtype())) + " and y is " +
                             std::string(dtype_name(op.y.dtype())) + ", need F64 for both or none");
  }
  op_check::dtype(name, "index", op.index, DType::kI32);
  op_check::matrix(name, "y", op.y, op.index.rows(), op.x.cols());
}

Cost cost(const CombineRows& op) {
  const double terms = static_cast<double>(op.index.size()) * static_cast<double>(op.x.cols());
  return {terms, terms * dtype_bits(op.x.dtype()) / 8.0 + op_check::bytes(op.index) +
                     op_check::bytes(op.y) * (op.accumulate ? 2.0 : 1.0)};
}

}  // namespace ds::kernels
