// Weights to FP8 with one multiplier for each block of 128 x 128.
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// For every block: amax = max(|src|, 1e-4), scale = amax / 448 (f32), with `power_of_two` the
// smallest power of two that is not below it, with `given_scale` what `scale` holds already; code =
// e4m3(clamp(src / scale, -448, 448)), to nearest even (reference/formats.md section 3: DeepSeek-V3
// kernel.py, DeepGEMM per_block_cast_to_fp8).
struct BlockQuantise {
  static constexpr std::string_view kName = "block_quantise";
  ConstView src;  // [rows, cols] F32 or BF16
  bool power_of_two = false;
  bool given_scale = false;
  View codes;  // [rows, cols] F8_E4M3
  View scale;  // [ceil(rows / 128), ceil(cols / 128)] F32
  View error;  // optional, as scale: largest |src - code * scale|; NaN where src has one that is
               // not finite
};
void check(const BlockQuantise& op);
Cost cost(const BlockQuantise& op);
void run(CpuContext& context, const BlockQuantise& op);

}  // namespace ds::kernels
