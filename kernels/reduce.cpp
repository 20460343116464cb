#include "kernels/reduce.h"

#include "kernels/op_check.h"

namespace ds::kernels {

void check(const ColumnSum& op) {
  op_check::compute(op.kName, "x", op.x);
  if (op.z) op_check::matrix(op.kName, "z", op.z, op.x.rows(), op.x.cols(), op.x.dtype());
  op_check::vector(op.kName, "y", op.y, op.x.cols(), statistics_dtype(op.x.dtype()));
}

Cost cost(const ColumnSum& op) {
  return {(op.z ? 2.0 : 1.0) * static_cast<double>(op.x.size()),
          op_check::bytes(op.x) + op_check::bytes(op.z) + 2.0 * op_check::bytes(op.y)};
}

void check(const RowSquaredNorm& op) {
  const auto name = op.kName;
  op_check::given(name, "x", op.x);
  const DType dtype = op.x.dtype();
  if (!is_compute(dtype) && dtype != DType::kF16 && dtype != DType::kF8E4M3) {
    op_check::fail(
        name, "x is " + std::string(dtype_name(dtype)) + ", need F32, F64, BF16, F16 or F8_E4M3");
  }
  if (op.scale) {
    if (dtype != DType::kF8E4M3) op_check::fail(name, "scale is given but x is not F8_E4M3");
    const DType scale = op.scale.dtype();
    if (scale != DType::kF32 && scale != DType::kBF16 && scale != DType::kF8E8M0) {
      op_check::fail(name,
                     "scale is " + std::string(dtype_name(scale)) + ", need F32, BF16 or F8_E8M0");
    }
    op_check::matrix(name, "scale", op.scale, (op.x.rows() + 127) / 128, (op.x.cols() + 127) / 128);
  }
  op_check::vector(name, "y", op.y, op.x.rows());
  if (op.y.dtype() != DType::kF32 && op.y.dtype() != DType::kF64) {
    op_check::fail(name, "y is " + std::string(dtype_name(op.y.dtype())) + ", need F32 or F64");
  }
}

Cost cost(const RowSquaredNorm& op) {
  return {2.0 * static_cast<double>(op.x.size()),
          op_check::bytes(op.x) + op_check::bytes(op.scale) + op_check::bytes(op.y)};
}

void check(const SquaredNorm& op) {
  if (op.tensors.size() != op.out.size()) {
    op_check::fail(op.kName, std::to_string(op.tensors.size()) + " tensors but " +
                                 std::to_string(op.out.size()) + " results");
  }
  for (std::size_t i = 0; i < op.tensors.size(); ++i) {
    const ConstView& tensor = op.tensors[i];
    const bool known = tensor.dtype() == DType::kF32 || tensor.dtype() == DType::kF64;
    if (tensor && known && tensor.contiguous()) continue;
    const std::string name = "tensor " + std::to_string(i);
    op_check::given(op.kName, name.c_str(), tensor);
    if (!known) {
      op_check::fail(op.kName,
                     name + " is " + std::string(dtype_name(tensor.dtype())) + ", need F32 or F64");
    }
    op_check::vector(op.kName, name.c_str(), tensor, tensor.size());
  }
}

Cost cost(const SquaredNorm& op) {
  Cost total;
  for (const ConstView& tensor : op.tensors) {
    total.flops += 2.0 * static_cast<double>(tensor.size());
    total.bytes += op_check::bytes(tensor);
  }
  return total;
}

void check(const CountNonFinite& op) {
  const DType dtype = op.x.dtype();
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16 &&
      dtype != DType::kF8E4M3) {
    op_check::fail(op.kName,
                   "x is " + std::string(dtype_name(dtype)) + ", need F32, BF16, F16 or F8_E4M3");
  }
  op_check::given(op.kName, "x", op.x);
  op_check::vector(op.kName, "count", op.count, 1, DType::kI64);
}

Cost cost(const CountNonFinite& op) {
  return {0.0, op_check::bytes(op.x) + op_check::bytes(op.count)};
}

}  // namespace ds::kernels
