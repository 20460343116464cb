// Elementwise ops and dropout.
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// y = (accumulate ? y : 0) + alpha * x; dtypes of x and y may differ; sum in f32 (f64).
struct AddScaled {
  static constexpr std::string_view kName = "add_scaled";
  ConstView x;  // [rows, cols]
  View y;       // [rows, cols]
  double alpha = 1.0;
  bool accumulate = true;
};
void check(const AddScaled& op);
Cost cost(const AddScaled& op);
void run(CpuContext& context, const AddScaled& op);

// y = x * factor (one factor per column), as DoRA needs it; y may be x.
struct ScaleColumns {
  static constexpr std::string_view kName = "scale_columns";
  ConstView x;       // [rows, cols] compute dtype
  ConstView factor;  // [cols] statistics dtype
  View y;            // [rows, cols]
};
void check(const ScaleColumns& op);
Cost cost(const ScaleColumns& op);
void run(CpuContext& context, const ScaleColumns& op);

// y (+)= x * mask / (1 - p), mask drawn by Philox4x32-10 (Random123) keyed by (seed, stream) at
// counter (row * cols + col): a pure function of the arguments, so a recomputation or a resumed run
// draws the same mask. An element is dropped when its 32-bit draw < p * 2^32.
struct Dropout {
  static constexpr std::string_view kName = "dropout";
  ConstView x;  // [rows, cols]
  View y;       // [rows, cols]; may be x when not accumulating
  double p = 0.0;
  std::uint64_t seed = 0;
  std::uint64_t stream = 0;  // unique per module, step and micro-batch
  bool accumulate = false;
};
void check(const Dropout& op);
Cost cost(const Dropout& op);
void run(CpuContext& context, const Dropout& op);

}  // namespace ds::kernels
