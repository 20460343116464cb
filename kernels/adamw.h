// AdamW as torch.optim.AdamW's single-tensor path computes it (reference/training.md section 4).
#pragma once

#include <span>

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

struct AdamWItem {
  View param;       // F32 (F64), contiguous
  ConstView grad;   // same shape
  View exp_avg;     // same shape
  View exp_avg_sq;  // same shape
  double lr = 0.0;
  double weight_decay = 0.0;
  std::int64_t step = 1;  // this tensor's own count, from 1
};

// p *= 1 - lr wd; m += (g - m)(1 - b1); v = v b2 + (1 - b2) g g;
// p -= lr / (1 - b1^t) * m / (sqrt(v) / sqrt(1 - b2^t) + eps), with g = grad * grad_scale.
// Bit-identical whatever the number of threads.
struct AdamW {
  static constexpr std::string_view kName = "adamw";
  std::span<const AdamWItem> items;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double eps = 1e-8;
  double grad_scale = 1.0;  // clipping coefficient
};
void check(const AdamW& op);
Cost cost(const AdamW& op);
void run(CpuContext& context, const AdamW& op);

}  // namespace ds::kernels
