#include "libcore/nn/mlp.h"

#include "kernels/swiglu.h"

namespace ds {

void Mlp::project(Exec& exec, Arena& arena, const ConstView& x, MlpSaved& saved) const {
  saved.gate_up = arena.allocate("mlp.gate_up", exec.dtype, {x.rows(), 2 * width});
  const LinearForward in[] = {{.layer = &gate_proj,
                               .x = x,
                               .y = saved.gate_up.slice_cols(0, width),
                               .saved = &saved.gate_proj},
                              {.layer = &up_proj,
                               .x = x,
                               .y = saved.gate_up.slice_cols(width, width),
                               .saved = &saved.up_proj}};
  linear_forward(exec, in);
}

void Mlp::restore(Exec& exec, const ConstView& x, MlpSaved& saved) const {
  ArenaScope scope(exec.scratch);
  project(exec, exec.saved, x, saved);
}

void Mlp::forward(Exec& exec, const ConstView& x, const View& y, MlpSaved& saved) const {
  ArenaScope scope(exec.scratch);
  project(exec, exec.droppable(), x, saved);
  const View act = exec.scratch.allocate("mlp.act", exec.dtype, {x.rows(), width});
  exec.device.run(kernels::SwigluForward{.gate_up = saved.gate_up, .y = act});
  const LinearForward down{
      .layer = &down_proj, .x = act, .y = y, .beta = 1.0, .saved = &saved.down_proj};
  linear_forward(exec, {&down, 1});
}

void Mlp::backward(Exec& exec, const ConstView& dy, MlpSaved& saved, const View& dx,
                   bool accumulate_dx) const {
  ArenaScope scope(exec.scratch);
  const std::int64_t rows = dy.rows();
  if (!exec.frozen) {
    const View act = exec.scratch.allocate("mlp.act", exec.dtype, {rows, width});
    exec.device.run(kernels::SwigluForward{.gate_up = saved.gate_up, .y = act});
    saved.down_proj.x = act;
  }
  const View d_act = exec.scratch.allocate("mlp.d_act", exec.dtype, {rows, width});
  const LinearBackward down{.layer = &down_proj, .dy = dy, .saved = &saved.down_proj, .dx = d_act};
  linear_backward(exec, {&down, 1});
  exec.device.run(
      kernels::SwigluBackward{.dy = d_act, .gate_up = saved.gate_up, .d_gate_up = saved.gate_up});
  const LinearBackward gate{.layer = &gate_proj,
                            .dy = saved.gate_up.slice_cols(0, width),
                            .saved = &saved.gate_proj,
                            .dx = dx,
                            .beta = accumulate_dx ? 1.0 : 0.0};
  linear_backward(exec, {&gate, 1});
  const LinearBackward up{.layer = &up_proj,
                          .dy = saved.gate_up.slice_cols(width, width),
                          .saved = &saved.up_proj,
                          .dx = dx,
                          .beta = 1.0};
  linear_backward(exec, {&up, 1});
}

}  // namespace ds
