#include "kernels/block_quantise.h"

#include "kernels/op_check.h"

namespace ds::kernels {

void check(const BlockQuantise& op) {
  const auto name = op.kName;
  op_check::given(name, "src", op.src);
  if (op.src.dtype() != DType::kF32 && op.src.dtype() != DType::kBF16) {
    op_check::fail(name,
                   "src is " + std::string(dtype_name(op.src.dtype())) + ", need F32 or BF16");
  }
  const std::int64_t rows = op.src.rows(), cols = op.src.cols();
  op_check::matrix(name, "codes", op.codes, rows, cols, DType::kF8E4M3);
  op_check::matrix(name, "scale", op.scale, (rows + 127) / 128, (cols + 127) / 128, DType::kF32);
  if (op.error) {
    op_check::matrix(name, "error", op.error, op.scale.rows(), op.scale.cols(), DType::kF32);
  }
}

Cost cost(const BlockQuantise& op) {
  return {2.0 * static_cast<double>(op.src.size()),
          op_check::bytes(op.src) + op_check::bytes(op.codes) + op_check::bytes(op.scale) +
              op_check::bytes(op.error)};
}

}  // namespace ds::kernels
