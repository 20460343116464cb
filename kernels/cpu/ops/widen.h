// FP8 to f32 in bulk.
#pragma once

#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {

// dst[i] = src[i] * scale in f32, for i in [0, n). Uses the processor's half-precision conversion
// where the instruction set has one.
void widen_fp8(const fp8_e4m3* src, std::int64_t n, float scale, float* dst);

}  // namespace ds::kernels::DSK_ISA
