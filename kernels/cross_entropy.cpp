#include "kernels/cross_entropy.h"

#include "kernels/op_check.h"

namespace ds::kernels {
namespace {

// Common to both directions; returns the dtype of the logits.
DType check_operands(std::string_view name, const ConstView& logits, const ConstView& targets,
                     const ConstView& lse) {
  op_check::given(name, "logits", logits);
  const DType dtype = logits.dtype();
  if (dtype != DType::kF32 && dtype != DType::kF64) {
    op_check::fail(name, "logits is " + std::string(dtype_name(dtype)) + ", need F32 or F64");
  }
  op_check::at_least(name, "vocab", logits.cols(), 1);
  op_check::vector(name, "targets", targets, logits.rows(), DType::kI32);
  op_check::vector(name, "lse", lse, logits.rows(), dtype);
  return dtype;
}

}  // namespace

void check(const CrossEntropyForward& op) {
  const DType dtype = check_operands(op.kName, op.logits, op.targets, op.lse);
  op_check::vector(op.kName, "loss", op.loss, op.logits.rows(), dtype);
}

Cost cost(const CrossEntropyForward& op) {
  return {4.0 * static_cast<double>(op.logits.size()),
          op_check::bytes(op.logits) + op_check::bytes(op.targets) + op_check::bytes(op.loss) +
              op_check::bytes(op.lse)};
}

void check(const CrossEntropyBackward& op) {
  const DType dtype = check_operands(op.kName, op.logits, op.targets, op.lse);
  const bool rounded = dtype == DType::kF32 && op.d_logits.dtype() == DType::kBF16;
  op_check::matrix(op.kName, "d_logits", op.d_logits, op.logits.rows(), op.logits.cols(),
                   rounded ? DType::kBF16 : dtype);
}

Cost cost(const CrossEntropyBackward& op) {
  return {3.0 * static_cast<double>(op.logits.size()),
          op_check::bytes(op.logits) + op_check::bytes(op.d_logits) + op_check::bytes(op.targets) +
              op_check::bytes(op.lse)};
}

}  // namespace ds::kernels
