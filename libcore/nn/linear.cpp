#include "libcore/nn/linear.h"

#include <cmath>
#include <cstring>

#include "kernels/elementwise.h"
#include "kernels/expert_permute.h"
#include "kernels/gemm.h"
#include "kernels/reduce.h"
#include "libcore/base/rng.h"

namespace ds {

using kernels::Gemm;
using kernels::GemmProblem;

namespace {

bool is_trained(const Parameter* parameter) {
  return parameter != nullptr && parameter->takes_gradient();
}

void zero(const View& view) {
  std::memset(view.data(), 0,
              static_cast<std::size_t>(view.size() * kernels::dtype_size(view.dtype())));
}

double element(const ConstView& view, std::int64_t i) {
  return view.dtype() == DType::kF64 ? view.as<double>()[i]
                                     : static_cast<double>(view.as<float>()[i]);
}

void set_element(const View& view, std::int64_t i, double value) {
  if (view.dtype() == DType::kF64) {
    view.as<double>()[i] = value;
  } else {
    view.as<float>()[i] = static_cast<float>(value);
  }
}

kernels::Dropout dropout_op(const Exec& exec, const LoraSlot& lora, const ConstView& x,
                            const View& y, bool accumulate) {
  return {.x = x,
          .y = y,
          .p = lora.dropout,
          .seed = exec.seed,
          .stream = mix_stream(exec.step_stream, lora.id),
          .accumulate = accumulate};
}

bool drops(const Exec& exec, const LoraSlot& lora) { return exec.training && lora.dropout > 0.0; }

// The adapter's input: x, or its dropped copy in scratch.
ConstView adapter_input(Exec& exec, const LoraSlot& lora, const ConstView& x) {
  if (!drops(exec, lora)) return x;
  const View dropped = exec.scratch.allocate("lora.dropped", x.dtype(), {x.rows(), x.cols()});
  exec.device.run(dropout_op(exec, lora, x, dropped, false));
  return dropped;
}

// y += bias for every row, through a gather of the one bias row.
void add_bias(Exec& exec, const Linear& layer, const View& y) {
  ArenaScope scope(exec.scratch);
  const std::int64_t rows = y.rows();
  const View index = exec.scratch.allocate("bias.index", DType::kI32, {rows, 1});
  zero(index);
  const View row = exec.scratch.allocate("bias.row", y.dtype(), {1, layer.out});
  exec.device.run(
      kernels::AddScaled{.x = layer.bias.reshape({1, layer.out}), .y = row, .accumulate = false});
  exec.device.run(kernels::CombineRows{.x = row, .index = index, .y = y, .accumulate = true});
}

}  // namespace

bool Linear::trainable() const {
  if (is_trained(weight_parameter) || is_trained(bias_parameter)) return true;
  return lora && (is_trained(lora->a) || is_trained(lora->b) || is_trained(lora->magnitude));
}

DoraGains dora_gains(Exec& exec, const Linear& layer, Arena& arena) {
  const LoraSlot& lora = *layer.lora;
  const DType dtype = exec.statistics();
  const std::int64_t r = lora.a->value.shape()[0];
  DoraGains gains{arena.allocate("dora.gain", dtype, {layer.out}),
                  arena.allocate("dora.norm", dtype, {layer.out})};
  ArenaScope scope(exec.scratch);
  const View aw = exec.scratch.allocate("dora.a_w", dtype, {r, layer.out});
  const View aa = exec.scratch.allocate("dora.a_a", dtype, {r, r});
  const ConstView a = lora.a->value.view();
  const GemmProblem problems[] = {
      {.a = a, .b = layer.weight.data, .b_scale = layer.weight.scale, .c = aw, .trans_b = true},
      {.a = a, .b = a, .c = aa, .trans_b = true}};
  exec.device.run(Gemm{problems});
  // ||w + s B A||^2 = ||w||^2 + 2 s (A w) . B + s^2 B (A A^T) B^T, row by row.
  const ConstView b = lora.b->value.view();
  for (std::int64_t row = 0; row < layer.out; ++row) {
    double norm2 = element(lora.base_norm2.view(), row);
    for (std::int64_t i = 0; i < r; ++i) {
      const double bi = element(b, row * r + i);
      norm2 += 2.0 * lora.scaling * bi * element(aw, i * layer.out + row);
      for (std::int64_t j = 0; j < r; ++j) {
        norm2 +=
            lora.scaling * lora.scaling * bi * element(b, row * r + j) * element(aa, i * r + j);
      }
    }
    const double norm = std::sqrt(norm2);
    set_element(gains.norm, row, norm);
    set_element(gains.gain, row, element(lora.magnitude->value.view(), row) / norm);
  }
  return gains;
}

void linear_forward(Exec& exec, std::span<const LinearForward> calls) {
  ArenaScope scope(exec.scratch);
  ArenaList<GemmProblem> down(exec.scratch, "linear.products", calls.size());
  ArenaList<GemmProblem> base(exec.scratch, "linear.products", calls.size());
  for (const LinearForward& call : calls) {
    const Linear& layer = *call.layer;
    *call.saved = LinearSaved{};
    call.saved->x = call.x;
    if (call.x.rows() == 0) continue;
    GemmProblem problem{.a = call.x,
                        .b = layer.weight.data,
                        .b_scale = layer.weight.scale,
                        .c = call.y,
                        .trans_b = true,
                        .beta = call.beta};
    if (layer.lora) {
      const LoraSlot& lora = *layer.lora;
      const std::int64_t r = lora.a->value.shape()[0];
      // Only B's gradient reads it again.
      Arena& arena = is_trained(lora.b) ? exec.saved : exec.scratch;
      const View p = arena.allocate("lora.p", exec.statistics(), {call.x.rows(), r});
      down.push_back({.a = adapter_input(exec, lora, call.x),
                      .b = lora.a->value.view(),
                      .c = p,
                      .trans_b = true,
                      .alpha = lora.scaling});
      call.saved->p = p;
      problem.low_rank_a = p;
      problem.low_rank_b = lora.b->value.view();
      if (lora.magnitude != nullptr) {
        Arena& outputs = is_trained(lora.magnitude) ? exec.saved : exec.scratch;
        const View u = outputs.allocate("dora.u", call.y.dtype(), {call.x.rows(), layer.out});
        call.saved->u = u;
        problem.c = u;
        problem.beta = 0.0;
      }
    }
    base.push_back(problem);
  }
  if (!down.empty()) exec.device.run(Gemm{down.span()});
  if (!base.empty()) exec.device.run(Gemm{base.span()});

  for (const LinearForward& call : calls) {
    const Linear& layer = *call.layer;
    if (call.x.rows() == 0) continue;
    if (call.saved->u) {
      const DoraGains gains = dora_gains(exec, layer, exec.saved);
      call.saved->gain = gains.gain;
      call.saved->norm = gains.norm;
      if (call.beta == 0.0) {
        exec.device.run(
            kernels::ScaleColumns{.x = call.saved->u, .factor = gains.gain, .y = call.y});
      } else {
        const View scaled =
            exec.scratch.allocate("dora.scaled", call.y.dtype(), {call.x.rows(), layer.out});
        exec.device.run(
            kernels::ScaleColumns{.x = call.saved->u, .factor = gains.gain, .y = scaled});
        exec.device.run(kernels::AddScaled{.x = scaled, .y = call.y});
      }
    }
    if (layer.bias) add_bias(exec, layer, call.y);
  }
}

void linear_backward(Exec& exec, std::span<const LinearBackward> calls) {
  ArenaScope scope(exec.scratch);
  struct Work {
    const LinearBackward* call;
    ConstView dy;  // of the product: DoRA's gains applied
    ConstView dp;  // [rows, r]
  };
  ArenaList<Work> works(exec.scratch, "linear.calls", calls.size());
  ArenaList<GemmProblem> up(exec.scratch, "linear.products", calls.size());
  for (const LinearBackward& call : calls) {
    const Linear& layer = *call.layer;
    if (call.dy.rows() == 0) continue;
    Work work{&call, call.dy, {}};
    const LoraSlot* lora = layer.lora ? &*layer.lora : nullptr;
    if (lora != nullptr && lora->magnitude != nullptr) {
      const View du =
          exec.scratch.allocate("dora.du", call.dy.dtype(), {call.dy.rows(), layer.out});
      exec.device.run(kernels::ScaleColumns{.x = call.dy, .factor = call.saved->gain, .y = du});
      work.dy = du;
      if (is_trained(lora->magnitude)) {
        const View sums = exec.scratch.allocate("dora.dm", exec.statistics(), {layer.out});
        zero(sums);
        exec.device.run(kernels::ColumnSum{.x = call.dy, .z = call.saved->u, .y = sums});
        const View grad = lora->magnitude->grad.view();
        for (std::int64_t i = 0; i < layer.out; ++i) {
          set_element(grad, i, element(grad, i) + element(sums, i) / element(call.saved->norm, i));
        }
        lora->magnitude->touched = true;
      }
    }
    if (lora != nullptr && (call.dx || is_trained(lora->a))) {
      const std::int64_t r = lora->a->value.shape()[0];
      const View dp = exec.scratch.allocate("lora.dp", exec.statistics(), {call.dy.rows(), r});
      up.push_back({.a = work.dy, .b = lora->b->value.view(), .c = dp, .alpha = lora->scaling});
      work.dp = dp;
    }
    works.push_back(work);
  }
  if (!up.empty()) exec.device.run(Gemm{up.span()});

  // Gradients of B, A, the weight and the input.
  ArenaList<GemmProblem> products(exec.scratch, "linear.products", 4 * works.size());
  for (const Work& work : works) {
    const LinearBackward& call = *work.call;
    const Linear& layer = *call.layer;
    const LoraSlot* lora = layer.lora ? &*layer.lora : nullptr;
    if (lora != nullptr) {
      if (is_trained(lora->b)) {
        products.push_back({.a = work.dy,
                            .b = call.saved->p,
                            .c = lora->b->grad.view(),
                            .trans_a = true,
                            .beta = 1.0});
        lora->b->touched = true;
      }
      if (is_trained(lora->a)) {
        products.push_back({.a = work.dp,
                            .b = adapter_input(exec, *lora, call.saved->x),
                            .c = lora->a->grad.view(),
                            .trans_a = true,
                            .beta = 1.0});
        lora->a->touched = true;
      }
    }
    if (is_trained(layer.weight_parameter)) {
      products.push_back({.a = work.dy,
                          .b = call.saved->x,
                          .c = layer.weight_parameter->grad.view(),
                          .trans_a = true,
                          .beta = 1.0});
      layer.weight_parameter->touched = true;
    }
    if (is_trained(layer.bias_parameter)) {
      exec.device.run(kernels::ColumnSum{.x = call.dy, .y = layer.bias_parameter->grad.view()});
      layer.bias_parameter->touched = true;
    }
    if (call.dx) {
      GemmProblem problem{.a = work.dy,
                          .b = layer.weight.data,
                          .b_scale = layer.weight.scale,
                          .c = call.dx,
                          .beta = call.beta};
      if (lora != nullptr && !drops(exec, *lora)) {
        problem.low_rank_a = work.dp;
        problem.low_rank_b = lora->a->value.view();
      }
      products.push_back(problem);
    }
  }
  if (!products.empty()) exec.device.run(Gemm{products.span()});

  // With dropout the adapter's share of dx passes through the mask, so it cannot ride along.
  for (const Work& work : works) {
    const LinearBackward& call = *work.call;
    if (!call.dx || !call.layer->lora || !drops(exec, *call.layer->lora)) continue;
    const LoraSlot& lora = *call.layer->lora;
    const View share =
        exec.scratch.allocate("lora.dx", call.dx.dtype(), {call.dy.rows(), call.layer->in});
    const GemmProblem problem{.a = work.dp, .b = lora.a->value.view(), .c = share};
    exec.device.run(Gemm{{&problem, 1}});
    exec.device.run(dropout_op(exec, lora, share, call.dx, true));
  }
}

}  // namespace ds
