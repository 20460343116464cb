#include "kernels/adamw.h"

#include "kernels/op_check.h"

namespace ds::kernels {
namespace {

// Whether check_item has nothing to say; a step has thousands of items, and their names take
// memory.
bool is_good(const ConstView& view, const ConstView& param) {
  return view && view.dtype() == param.dtype() && view.rows() == param.rows() &&
         view.cols() == param.cols() && view.contiguous();
}

void check_item(const AdamW& op, std::size_t index, const char* operand, const ConstView& view) {
  const ConstView& param = op.items[index].param;
  if (is_good(view, param)) return;
  const std::string name = std::string(operand) + " of item " + std::to_string(index);
  op_check::dtype(op.kName, name.c_str(), view, param.dtype());
  op_check::matrix(op.kName, name.c_str(), view, param.rows(), param.cols());
  op_check::vector(op.kName, name.c_str(), view, param.size());
}

void check_beta(const AdamW& op, const char* name, double beta) {
  if (!(beta >= 0.0 && beta < 1.0)) {
    op_check::fail(op.kName,
                   std::string(name) + " is " + std::to_string(beta) + ", need 0 <= beta < 1");
  }
}

}  // namespace

void check(const AdamW& op) {
  check_beta(op, "beta1", op.beta1);
  check_beta(op, "beta2", op.beta2);
  for (std::size_t i = 0; i < op.items.size(); ++i) {
    const AdamWItem& item = op.items[i];
    const DType dtype = item.param.dtype();
    if (dtype != DType::kF32 && dtype != DType::kF64) {
      op_check::fail(op.kName, "param of item " + std::to_string(i) + " is " +
                                   std::string(dtype_name(dtype)) + ", need F32 or F64");
    }
    check_item(op, i, "param", item.param);
    check_item(op, i, "grad", item.grad);
    check_item(op, i, "exp_avg", item.exp_avg);
    check_item(op, i, "exp_avg_sq", item.exp_avg_sq);
    if (item.step < 1) {
      op_check::at_least(op.kName, ("step of item " + std::to_string(i)).c_str(), item.step, 1);
    }
  }
}

Cost cost(const AdamW& op) {
  Cost total;
  for (const AdamWItem& item : op.items) {
    total.flops += 14.0 * static_cast<double>(item.param.size());
    total.bytes += 7.0 * op_check::bytes(item.param);
  }
  return total;
}

}  // namespace ds::kernels
