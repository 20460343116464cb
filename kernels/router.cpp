#include "kernels/router.h"

#include "kernels/op_check.h"

namespace ds::kernels {
namespace {

void check_settings(std::string_view name, const RouterSettings& s, std::int64_t experts) {
  op_check::at_least(name, "groups", s.groups, 1);
  op_check::at_least(name, "top_k", s.top_k, 1);
  if (experts % s.groups != 0) {
    op_check::fail(name, std::to_string(experts) + " experts do not divide into " +
                             std::to_string(s.groups) + " groups");
  }
  if (s.kept_groups < 1 || s.kept_groups > s.groups) {
    op_check::fail(name, "kept_groups is " + std::to_string(s.kept_groups) +
                             ", need 1 <= kept_groups <= " + std::to_string(s.groups));
  }
  const std::int64_t in_group = experts / s.groups;
  const bool grouped = s.method != TopkMethod::kGreedy && s.groups > 1;
  if (grouped && s.method == TopkMethod::kNoauxTc && in_group < 2) {
    op_check::fail(name, "noaux_tc adds the two best scores of a group, but a group has " +
                             std::to_string(in_group) + " expert");
  }
  const std::int64_t available = grouped ? in_group * s.kept_groups : experts;
  if (s.top_k > available) {
    op_check::fail(name, "top_k is " + std::to_string(s.top_k) + ", but only " +
                             std::to_string(available) + " experts can be chosen");
  }
}

void check_statistics(std::string_view name, const char* operand, const ConstView& view) {
  op_check::given(name, operand, view);
  if (view.dtype() != DType::kF32 && view.dtype() != DType::kF64) {
    op_check::fail(name, std::string(operand) + " is " + std::string(dtype_name(view.dtype())) +
                             ", need F32 or F64");
  }
}

}  // namespace

void check(const RouterForward& op) {
  const auto name = op.kName;
  check_statistics(name, "logits", op.logits);
  const std::int64_t tokens = op.logits.rows();
  const std::int64_t experts = op.logits.cols();
  const DType dtype = op.logits.dtype();
  check_settings(name, op.settings, experts);
  if (op.bias) op_check::vector(name, "bias", op.bias, experts, dtype);
  op_check::matrix(name, "scores", op.scores, tokens, experts, dtype);
  op_check::matrix(name, "experts", op.experts, tokens, op.settings.top_k, DType::kI32);
  op_check::matrix(name, "weights", op.weights, tokens, op.settings.top_k, dtype);
}

Cost cost(const RouterForward& op) {
  return {12.0 * static_cast<double>(op.logits.size()),
          op_check::bytes(op.logits) + op_check::bytes(op.bias) + op_check::bytes(op.scores) +
              op_check::bytes(op.experts) + op_check::bytes(op.weights)};
}

void check(const RouterBackward& op) {
  const auto name = op.kName;
  check_statistics(name, "scores", op.scores);
  const std::int64_t tokens = op.scores.rows();
  const DType dtype = op.scores.dtype();
  check_settings(name, op.settings, op.scores.cols());
  op_check::matrix(name, "experts", op.experts, tokens, op.settings.top_k, DType::kI32);
  op_check::matrix(name, "d_weights", op.d_weights, tokens, op.settings.top_k, dtype);
  op_check::matrix(name, "d_logits", op.d_logits, tokens, op.scores.cols(), dtype);
}

Cost cost(const RouterBackward& op) {
  return {4.0 * static_cast<double>(op.scores.size()),
          op_check::bytes(op.scores) + op_check::bytes(op.experts) + op_check::bytes(op.d_weights) +
              op_check::bytes(op.d_logits)};
}

}  // namespace ds::kernels
