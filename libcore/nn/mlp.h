// Dense SwiGLU MLP; the shared experts are one of these too.
#pragma once

#include "libcore/nn/linear.h"

namespace ds {

struct MlpSaved {
  View gate_up;  // [tokens, 2 * width]; backward overwrites it with its gradient
  LinearSaved gate_proj, up_proj, down_proj;
};

struct Mlp {
  std::int64_t width = 0;
  Linear gate_proj;
  Linear up_proj;
  Linear down_proj;

  // y += down(silu(gate(x)) * up(x)). saved.gate_up lies in exec.droppable().
  void forward(Exec& exec, const ConstView& x, const View& y, MlpSaved& saved) const;
  // Makes a dropped saved.gate_up again in exec.saved.
  void restore(Exec& exec, const ConstView& x, MlpSaved& saved) const;
  // dx (+)= gradient of x given dy of the sum. Consumes saved.
  void backward(Exec& exec, const ConstView& dy, MlpSaved& saved, const View& dx,
                bool accumulate_dx) const;

 private:
  void project(Exec& exec, Arena& arena, const ConstView& x, MlpSaved& saved) const;
};

}  // namespace ds
