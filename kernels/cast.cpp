#include "kernels/cast.h"

#include <stdexcept>
#include <string>

namespace ds::kernels {
namespace {

[[noreturn]] void fail(const std::string& text) { throw std::invalid_argument("cast: " + text); }

bool can_cast(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBF16 ||
         dtype == DType::kF16 || dtype == DType::kF8E4M3;
}

std::string dims(const ConstView& view) {
  return "[" + std::to_string(view.rows()) + ", " + std::to_string(view.cols()) + "]";
}

}  // namespace

void check(const Cast& op) {
  if (!op.src && op.src.size() != 0) fail("src is not given");
  if (!op.dst && op.dst.size() != 0) fail("dst is not given");
  if (!can_cast(op.src.dtype())) {
    fail("src is " + std::string(dtype_name(op.src.dtype())) +
         ", need F32, F64, BF16, F16 or F8_E4M3");
  }
  if (!can_cast(op.dst.dtype())) {
    fail("dst is " + std::string(dtype_name(op.dst.dtype())) +
         ", need F32, F64, BF16, F16 or F8_E4M3");
  }
  if (op.src.rows() != op.dst.rows() || op.src.cols() != op.dst.cols()) {
    fail("src is " + dims(op.src) + ", dst is " + dims(op.dst));
  }
  if (!op.scale) return;
  if (op.src.dtype() != DType::kF8E4M3) {
    fail("scale is given but src is " + std::string(dtype_name(op.src.dtype())) + ", need F8_E4M3");
  }
  const DType scale = op.scale.dtype();
  if (scale != DType::kF32 && scale != DType::kBF16 && scale != DType::kF8E8M0) {
    fail("scale is " + std::string(dtype_name(scale)) + ", need F32, BF16 or F8_E8M0");
  }
  if (op.scale.rows() != (op.src.rows() + 127) / 128 ||
      op.scale.cols() != (op.src.cols() + 127) / 128) {
    fail("scale is " + dims(op.scale) + " for src " + dims(op.src) + ", need one per 128 x 128");
  }
}

Cost cost(const Cast& op) {
  const auto elements = static_cast<double>(op.src.size());
  double bits = dtype_bits(op.src.dtype()) + dtype_bits(op.dst.dtype());
  double scale_bytes = 0.0;
  if (op.scale) {
    scale_bytes = static_cast<double>(op.scale.size()) * dtype_bits(op.scale.dtype()) / 8.0;
  }
  return {op.scale ? elements : 0.0, elements * bits / 8.0 + scale_bytes};
}

}  // namespace ds::kernels
