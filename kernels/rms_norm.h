// RMSNorm as transformers computes it: the normalised value is cast to x's dtype before the weight
// multiplies it (reference/model.md section 3).
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// y = weight * cast(x * rstd), rstd = 1 / sqrt(mean(x^2) + eps).
struct RmsNormForward {
  static constexpr std::string_view kName = "rms_norm_forward";
  ConstView x;       // [tokens, dim] compute dtype, rows may be strided
  ConstView weight;  // [dim] F32 (F64 when x is F64)
  View y;            // [tokens, dim] dtype of x
  View rstd;         // [tokens] statistics dtype
  double eps = 1e-6;
};
void check(const RmsNormForward& op);
Cost cost(const RmsNormForward& op);
void run(CpuContext& context, const RmsNormForward& op);
void run(CudaContext& context, const RmsNormForward& op);

// dx (+)= d/dx, dweight += d/dweight.
struct RmsNormBackward {
  static constexpr std::string_view kName = "rms_norm_backward";
  ConstView dy;                // [tokens, dim]
  ConstView x;                 // [tokens, dim]
  ConstView weight;            // [dim]
  ConstView rstd;              // [tokens]
  View dx;                     // [tokens, dim]
  bool accumulate_dx = false;  // dx += instead of dx =
  View dweight;                // optional [dim] statistics dtype, always added to
};
void check(const RmsNormBackward& op);
Cost cost(const RmsNormBackward& op);
void run(CpuContext& context, const RmsNormBackward& op);
void run(CudaContext& context, const RmsNormBackward& op);

}  // namespace ds::kernels
