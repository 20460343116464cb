// SwiGLU, with the routing weight of a row folded in.
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// y = row_weight * silu(gate) * up. Folding the routing weight in here (before the down projection)
// saves keeping the down projection's output for the router's gradient.
struct SwigluForward {
  static constexpr std::string_view kName = "swiglu_forward";
  ConstView gate_up;     // [rows, 2 * width]: gate columns, then up columns
  ConstView row_weight;  // optional [rows] statistics dtype
  View y;                // [rows, width]
};
void check(const SwigluForward& op);
Cost cost(const SwigluForward& op);
void run(CpuContext& context, const SwigluForward& op);

struct SwigluBackward {
  static constexpr std::string_view kName = "swiglu_backward";
  ConstView dy;          // [rows, width]
  ConstView gate_up;     // [rows, 2 * width]
  ConstView row_weight;  // optional [rows]
  View d_gate_up;        // [rows, 2 * width], written; may be the same memory as gate_up
  View d_row_weight;     // [rows] statistics dtype, present exactly when row_weight is
};
void check(const SwigluBackward& op);
Cost cost(const SwigluBackward& op);
void run(CpuContext& context, const SwigluBackward& op);

}  // namespace ds::kernels
