#include "libcore/nn/moe.h"

#include "kernels/expert_permute.h"
#include "kernels/gemm.h"
#include "kernels/swiglu.h"

namespace ds {

using kernels::CombineRows;
using kernels::GatherRows;
using kernels::Gemm;
using kernels::GemmProblem;

template <class F>
void Moe::for_active(const MoeSaved& saved, F&& f) const {
  const std::int32_t* offsets = saved.offsets.as<std::int32_t>();
  for (std::size_t e = 0; e < experts.size(); ++e) {
    if (offsets[e + 1] > offsets[e]) f(e, offsets[e], offsets[e + 1] - offsets[e]);
  }
}

void Moe::forward(Exec& exec, const ConstView& xn, const View& y, MoeSaved& saved) const {
  const std::int64_t tokens = xn.rows();
  const std::int64_t hidden = xn.cols();
  const std::int64_t k = router.top_k;
  const std::int64_t slots = tokens * k;
  const auto count = static_cast<std::int64_t>(experts.size());
  const DType dtype = exec.dtype;
  const DType statistics = exec.statistics();
  saved.xn = xn;
  saved.scores = exec.saved.allocate("router.scores", statistics, {tokens, count});
  saved.experts = exec.saved.allocate("router.experts", DType::kI32, {tokens, k});
  saved.row_weight = exec.saved.allocate("router.row_weight", statistics, {slots, 1});
  saved.offsets = exec.saved.allocate("router.offsets", DType::kI32, {count + 1});
  saved.slot_token = exec.saved.allocate("router.slot_token", DType::kI32, {slots});
  saved.entry_slot = exec.saved.allocate("router.entry_slot", DType::kI32, {tokens, k});
  saved.gate_up = exec.saved.allocate("experts.gate_up", dtype, {slots, 2 * width});
  for (ArenaList<LinearSaved>* each : {&saved.gate_proj, &saved.up_proj, &saved.down_proj}) {
    *each = ArenaList<LinearSaved>(exec.saved, "experts.linears", experts.size());
    each->append(experts.size());
  }

  ArenaScope scope(exec.scratch);
  {
    ArenaScope router_scope(exec.scratch);
    const View logits = exec.scratch.allocate("router.logits", statistics, {tokens, count});
    const View weights = exec.scratch.allocate("router.weights", statistics, {tokens, k});
    const View slot_entry = exec.scratch.allocate("router.slot_entry", DType::kI32, {slots});
    const GemmProblem gate{
        .a = xn, .b = gate_weight.data, .b_scale = gate_weight.scale, .c = logits, .trans_b = true};
    exec.device.run(Gemm{{&gate, 1}});
    exec.device.run(kernels::RouterForward{.settings = router,
                                           .logits = logits,
                                           .bias = gate_bias,
                                           .scores = saved.scores,
                                           .experts = saved.experts,
                                           .weights = weights});
    exec.device.run(kernels::ExpertPlan{.experts = saved.experts,
                                        .offsets = saved.offsets,
                                        .slot_token = saved.slot_token,
                                        .slot_entry = slot_entry,
                                        .entry_slot = saved.entry_slot});
    exec.device.run(
        GatherRows{.x = weights.reshape({slots, 1}), .index = slot_entry, .y = saved.row_weight});
  }

  const View xg = exec.scratch.allocate("experts.x", dtype, {slots, hidden});
  exec.device.run(GatherRows{.x = xn, .index = saved.slot_token, .y = xg});
  ArenaList<LinearForward> calls(exec.scratch, "experts.calls", 2 * experts.size());
  for_active(saved, [&](std::size_t e, std::int64_t begin, std::int64_t rows) {
    const ConstView x = xg.slice_rows(begin, rows);
    const View out = saved.gate_up.slice_rows(begin, rows);
    calls.push_back({.layer = &experts[e].gate_proj,
                     .x = x,
                     .y = out.slice_cols(0, width),
                     .saved = &saved.gate_proj[e]});
    calls.push_back({.layer = &experts[e].up_proj,
                     .x = x,
                     .y = out.slice_cols(width, width),
                     .saved = &saved.up_proj[e]});
  });
  linear_forward(exec, calls.span());

  const View act = exec.scratch.allocate("experts.act", dtype, {slots, width});
  exec.device.run(kernels::SwigluForward{
      .gate_up = saved.gate_up, .row_weight = saved.row_weight.reshape({slots}), .y = act});
  const View out = exec.scratch.allocate("experts.out", dtype, {slots, hidden});
  calls.clear();
  for_active(saved, [&](std::size_t e, std::int64_t begin, std::int64_t rows) {
    calls.push_back({.layer = &experts[e].down_proj,
                     .x = act.slice_rows(begin, rows),
                     .y = out.slice_rows(begin, rows),
                     .saved = &saved.down_proj[e]});
  });
  linear_forward(exec, calls.span());
  exec.device.run(CombineRows{.x = out, .index = saved.entry_slot, .y = y, .accumulate = true});
  if (shared) shared->forward(exec, xn, y, saved.shared);
}

void Moe::backward(Exec& exec, const ConstView& dy, MoeSaved& saved, const View& dxn) const {
  ArenaScope scope(exec.scratch);
  const std::int64_t tokens = dy.rows();
  const std::int64_t hidden = dy.cols();
  const std::int64_t k = router.top_k;
  const std::int64_t slots = tokens * k;
  const auto count = static_cast<std::int64_t>(experts.size());
  const DType dtype = exec.dtype;
  const DType statistics = exec.statistics();

  // Inputs of the experts' products are read by the gradients of their adapters only.
  View xg;
  View act;
  if (!exec.frozen) {
    xg = exec.scratch.allocate("experts.x", dtype, {slots, hidden});
    act = exec.scratch.allocate("experts.act", dtype, {slots, width});
  }
  const View d_act = exec.scratch.allocate("experts.d_act", dtype, {slots, width});
  const View d_row_weight = exec.scratch.allocate("experts.d_row_weight", statistics, {slots, 1});
  // One buffer serves as the gathered dy first and as the gathered dx afterwards.
  const View dyg = exec.scratch.allocate("experts.dy", dtype, {slots, hidden});
  const ConstView row_weight = saved.row_weight.reshape({slots});
  exec.device.run(GatherRows{.x = dy, .index = saved.slot_token, .y = dyg});
  if (!exec.frozen) {
    exec.device.run(GatherRows{.x = saved.xn, .index = saved.slot_token, .y = xg});
    exec.device.run(
        kernels::SwigluForward{.gate_up = saved.gate_up, .row_weight = row_weight, .y = act});
  }

  ArenaList<LinearBackward> calls(exec.scratch, "experts.calls", experts.size());
  for_active(saved, [&](std::size_t e, std::int64_t begin, std::int64_t rows) {
    if (!exec.frozen) {
      saved.down_proj[e].x = act.slice_rows(begin, rows);
      saved.gate_proj[e].x = xg.slice_rows(begin, rows);
      saved.up_proj[e].x = xg.slice_rows(begin, rows);
    }
    calls.push_back({.layer = &experts[e].down_proj,
                     .dy = dyg.slice_rows(begin, rows),
                     .saved = &saved.down_proj[e],
                     .dx = d_act.slice_rows(begin, rows)});
  });
  linear_backward(exec, calls.span());
  exec.device.run(kernels::SwigluBackward{.dy = d_act,
                                          .gate_up = saved.gate_up,
                                          .row_weight = row_weight,
                                          .d_gate_up = saved.gate_up,
                                          .d_row_weight = d_row_weight.reshape({slots})});
  const View dxg = dyg;
  for (const bool gate : {true, false}) {
    calls.clear();
    for_active(saved, [&](std::size_t e, std::int64_t begin, std::int64_t rows) {
      const View d_gate_up = saved.gate_up.slice_rows(begin, rows);
      calls.push_back({.layer = gate ? &experts[e].gate_proj : &experts[e].up_proj,
                       .dy = d_gate_up.slice_cols(gate ? 0 : width, width),
                       .saved = gate ? &saved.gate_proj[e] : &saved.up_proj[e],
                       .dx = dxg.slice_rows(begin, rows),
                       .beta = gate ? 0.0 : 1.0});
    });
    linear_backward(exec, calls.span());
  }
  exec.device.run(CombineRows{.x = dxg, .index = saved.entry_slot, .y = dxn});

  const View d_weights = exec.scratch.allocate("router.d_weights", statistics, {tokens, k});
  const View d_logits = exec.scratch.allocate("router.d_logits", statistics, {tokens, count});
  exec.device.run(GatherRows{.x = d_row_weight,
                             .index = saved.entry_slot.reshape({slots}),
                             .y = d_weights.reshape({slots, 1})});
  exec.device.run(kernels::RouterBackward{.settings = router,
                                          .scores = saved.scores,
                                          .experts = saved.experts,
                                          .d_weights = d_weights,
                                          .d_logits = d_logits});
  const GemmProblem dx{
      .a = d_logits, .b = gate_weight.data, .b_scale = gate_weight.scale, .c = dxn, .beta = 1.0};
  exec.device.run(Gemm{{&dx, 1}});
  if (gate_parameter != nullptr && gate_parameter->takes_gradient()) {
    const GemmProblem dw{.a = d_logits,
                         .b = saved.xn,
                         .c = gate_parameter->grad.view(),
                         .trans_a = true,
                         .beta = 1.0};
    exec.device.run(Gemm{{&dw, 1}});
    gate_parameter->touched = true;
  }
  if (shared) shared->backward(exec, dy, saved.shared, dxn, true);
}

}  // namespace ds
