// Conversions between dtypes.
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// dst = (dst dtype)(src [* scale]). Exactly one rounding (reference/formats.md section 5).
// src: F32, F64, BF16, F16, F8_E4M3; dst: F32, F64, BF16, F16, F8_E4M3 (clamped to +-448, no
// scale). With `scale` (F8_E4M3 source only) the product is formed in f32 first.
struct Cast {
  static constexpr std::string_view kName = "cast";
  ConstView src;    // [rows, cols]
  ConstView scale;  // optional [ceil(rows/128), ceil(cols/128)]: F32, BF16 or F8_E8M0
  View dst;         // [rows, cols]
};
void check(const Cast& op);
Cost cost(const Cast& op);
void run(CpuContext& context, const Cast& op);
void run(CudaContext& context, const Cast& op);

}  // namespace ds::kernels
