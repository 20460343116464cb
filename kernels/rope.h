// Rotary position embedding, in place (reference/model.md section 3).
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// Rotates dims [offset, offset + r) of each of `heads` heads, head_stride columns apart, where
// r = 2 * cos.cols(). Pair i is (2i, 2i+1) when interleaved, else (i, i + r/2); the layout stays.
// (a, b) -> (a cos - b sin, b cos + a sin); inverse flips the sign of sin, which is the backward:
// gradients pass through the transposed rotation. Rotation in f32 (f64 for F64), one rounding.
struct Rope {
  static constexpr std::string_view kName = "rope";
  View x;               // [tokens, >= heads * head_stride] compute dtype, rows may be strided
  ConstView positions;  // [tokens] I32, each in [0, cos.rows())
  ConstView cos;        // [positions, r/2] statistics dtype, attention factor included
  ConstView sin;        // [positions, r/2]
  int heads = 1;
  std::int64_t head_stride = 0;
  std::int64_t offset = 0;
  bool interleaved = true;
  bool inverse = false;
};
void check(const Rope& op);
Cost cost(const Rope& op);
void run(CpuContext& context, const Rope& op);

}  // namespace ds::kernels
