// Multipliers of FP8 weights in blocks of 128 x 128 (reference/formats.md section 3).
#pragma once

#include "kernels/cpu/ops/simd.h"
#include "kernels/view.h"

namespace ds::kernels::DSK_ISA {

inline constexpr std::int64_t kScaleBlock = 128;

// Entry [row, col] of an F32, BF16 or F8_E8M0 scale matrix as F32.
inline float block_scale(const ConstView& scale, std::int64_t row, std::int64_t col) {
  const std::int64_t at = row * scale.row_stride() + col;
  switch (scale.dtype()) {
    case DType::kF32:
      return scale.as<float>()[at];
    case DType::kBF16:
      return to_acc(scale.as<bf16>()[at]);
    default:
      return to_acc(scale.as<ue8m0>()[at]);
  }
}

}  // namespace ds::kernels::DSK_ISA
