#include "libcore/nn/mla.h"

#include "kernels/cast.h"
#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "kernels/rope.h"
#include "libcore/nn/row_ops.h"

namespace ds {

using kernels::Gemm;
using kernels::GemmProblem;

void Mla::rotate(Exec& exec, const ConstView& positions, const View& x, int heads, int stride,
                 int offset, bool inverse) const {
  exec.device.run(kernels::Rope{.x = x,
                                .positions = positions,
                                .cos = rope.cos,
                                .sin = rope.sin,
                                .heads = heads,
                                .head_stride = stride,
                                .offset = offset,
                                .interleaved = rope.interleaved,
                                .inverse = inverse});
}

void Mla::rotate(Exec& exec, const ConstView& positions, const View& q, const View& k_rope,
                 bool inverse) const {
  rotate(exec, positions, q, shape.heads, shape.nope + shape.rope, shape.nope, inverse);
  rotate(exec, positions, k_rope, 1, shape.rope, 0, inverse);
}

void Mla::select_queries(Exec& exec, const Rows& rows, Arena& arena, MlaSaved& saved) const {
  saved.xq = saved.xn;
  if (!rows.wanted) return;
  saved.xq = arena.allocate("attention.xq", exec.dtype, {rows.outputs(), saved.xn.cols()});
  gather_rows(exec, saved.xn, rows.wanted, saved.xq);
}

// Calls project(q of the rows that ask) and puts the result into saved.q, which must be there.
template <class F>
void project_wanted(Exec& exec, const Rows& rows, const View& q, F&& project) {
  if (!rows.wanted) return project(q);
  const View part = exec.scratch.allocate("attention.q", exec.dtype, {rows.outputs(), q.cols()});
  project(part);
  scatter_rows(exec, part, rows.wanted_index, q, false);
}

// Fills saved.q and saved.kv_a (not yet rotated) and saved.latent from saved.xn.
void Mla::project_queries(Exec& exec, const Rows& rows, MlaSaved& saved) const {
  const DType dtype = exec.dtype;
  const std::int64_t tokens = rows.tokens();
  const std::int64_t outputs = rows.outputs();
  Arena& arena = exec.droppable();
  select_queries(exec, rows, exec.inputs(), saved);
  saved.kv_a = arena.allocate("attention.kv_a", dtype, {tokens, kv_lora_rank + shape.rope});
  saved.kv_a_rstd = arena.allocate("attention.kv_a_rstd", exec.statistics(), {tokens});
  Arena& latents = exec.caching ? exec.saved : exec.inputs();
  saved.latent = latents.allocate("attention.latent", dtype, {tokens, kv_lora_rank});
  saved.q = arena.allocate("attention.q", dtype,
                           {tokens, shape.heads * std::int64_t{shape.nope + shape.rope}});
  const LinearForward kv_a{
      .layer = &kv_a_proj, .x = saved.xn, .y = saved.kv_a, .saved = &saved.kv_a_proj};
  if (has_q_lora) {
    saved.q_a = arena.allocate("attention.q_a", dtype, {outputs, q_a_proj.out});
    saved.q_a_rstd = arena.allocate("attention.q_a_rstd", exec.statistics(), {outputs});
    saved.q_an = exec.inputs().allocate("attention.q_an", dtype, {outputs, q_a_proj.out});
    const LinearForward calls[] = {
        {.layer = &q_a_proj, .x = saved.xq, .y = saved.q_a, .saved = &saved.q_a_proj}, kv_a};
    linear_forward(exec, calls);
    q_a_norm.forward(exec, saved.q_a, saved.q_an, saved.q_a_rstd);
    project_wanted(exec, rows, saved.q, [&](const View& q) {
      const LinearForward q_b{
          .layer = &q_b_proj, .x = saved.q_an, .y = q, .saved = &saved.q_b_proj};
      linear_forward(exec, {&q_b, 1});
    });
  } else {
    project_wanted(exec, rows, saved.q, [&](const View& q) {
      const LinearForward calls[] = {
          {.layer = &q_proj, .x = saved.xq, .y = q, .saved = &saved.q_proj}, kv_a};
      linear_forward(exec, calls);
    });
  }
  kv_a_norm.forward(exec, saved.kv_a.slice_cols(0, kv_lora_rank), saved.latent, saved.kv_a_rstd);
}

void Mla::make_queries_and_keys(Exec& exec, const Rows& rows, MlaSaved& saved) const {
  project_queries(exec, rows, saved);
  rotate(exec, rows.positions, saved.q, saved.kv_a.slice_cols(kv_lora_rank, shape.rope), false);
  saved.kv = exec.droppable().allocate("attention.kv", exec.dtype, {rows.tokens(), kv_b_proj.out});
  const LinearForward kv_b{
      .layer = &kv_b_proj, .x = saved.latent, .y = saved.kv, .saved = &saved.kv_b_proj};
  linear_forward(exec, {&kv_b, 1});
}

void Mla::attend(Exec& exec, const Rows& rows, MlaSaved& saved) const {
  Arena& arena = exec.drop_attention ? exec.scratch : exec.saved;
  const std::int64_t tokens = rows.tokens();
  saved.o = arena.allocate("attention.o", exec.dtype, {tokens, shape.heads * shape.value});
  saved.lse = arena.allocate("attention.lse", exec.statistics(), {shape.heads, tokens});
  exec.device.run(
      kernels::AttentionForward{.shape = shape,
                                .scale = softmax_scale,
                                .q = saved.q,
                                .kv = saved.kv,
                                .k_rope = saved.kv_a.slice_cols(kv_lora_rank, shape.rope),
                                .segments = rows.segments,
                                .o = saved.o,
                                .lse = saved.lse});
  saved.o_wanted = saved.o;
  if (rows.wanted) {
    // Only o_proj's own gradient reads it again.
    Arena& wanted = exec.frozen ? exec.scratch : arena;
    saved.o_wanted =
        wanted.allocate("attention.o_wanted", exec.dtype, {rows.outputs(), saved.o.cols()});
    gather_rows(exec, saved.o, rows.wanted, saved.o_wanted);
  }
}

void Mla::forward(Exec& exec, const Rows& rows, const View& y, MlaSaved& saved) const {
  make_queries_and_keys(exec, rows, saved);
  attend(exec, rows, saved);
  const LinearForward out{
      .layer = &o_proj, .x = saved.o_wanted, .y = y, .beta = 1.0, .saved = &saved.o_proj};
  linear_forward(exec, {&out, 1});
}

void Mla::restore(Exec& exec, const Rows& rows, MlaSaved& saved) const {
  // Into exec.saved: nothing is droppable any more.
  Exec again = exec;
  again.selective = again.drop_attention = false;
  ArenaScope scope(exec.scratch);
  make_queries_and_keys(again, rows, saved);
  if (exec.drop_attention) {
    attend(again, rows, saved);
    saved.o_proj.x = saved.o_wanted;
  }
}

void Mla::backward(Exec& exec, const Rows& rows, const ConstView& dy, MlaSaved& saved,
                   const View& dxn) const {
  ArenaScope scope(exec.scratch);
  const std::int64_t tokens = rows.tokens();
  const DType dtype = exec.dtype;
  const View d_o = exec.scratch.allocate("attention.d_o", dtype, {tokens, saved.o.cols()});
  {
    ArenaScope part_scope(exec.scratch);
    const View part = rows.wanted ? exec.scratch.allocate("attention.d_o", dtype,
                                                          {rows.outputs(), saved.o.cols()})
                                  : d_o;
    const LinearBackward out{.layer = &o_proj, .dy = dy, .saved = &saved.o_proj, .dx = part};
    linear_backward(exec, {&out, 1});
    if (rows.wanted) scatter_rows(exec, part, rows.wanted_index, d_o, false);
  }

  const View dq = exec.scratch.allocate("attention.dq", dtype, {tokens, saved.q.cols()});
  const View dkv = exec.scratch.allocate("attention.dkv", dtype, {tokens, saved.kv.cols()});
  const View dkv_a = exec.scratch.allocate("attention.dkv_a", dtype, {tokens, saved.kv_a.cols()});
  const View dk_rope = dkv_a.slice_cols(kv_lora_rank, shape.rope);
  exec.device.run(
      kernels::AttentionBackward{.shape = shape,
                                 .scale = softmax_scale,
                                 .q = saved.q,
                                 .kv = saved.kv,
                                 .k_rope = saved.kv_a.slice_cols(kv_lora_rank, shape.rope),
                                 .segments = rows.segments,
                                 .o = saved.o,
                                 .lse = saved.lse,
                                 .d_o = d_o,
                                 .dq = dq,
                                 .dkv = dkv,
                                 .dk_rope = dk_rope});
  rotate(exec, rows.positions, dq, dk_rope, true);

  // Of the rows that asked.
  View dq_wanted = dq;
  View dxq = dxn;
  if (rows.wanted) {
    dq_wanted = exec.scratch.allocate("attention.dq", dtype, {rows.outputs(), dq.cols()});
    gather_rows(exec, dq, rows.wanted, dq_wanted);
    if (dxn) dxq = exec.scratch.allocate("attention.dxq", dtype, {rows.outputs(), dxn.cols()});
  }
  const View d_latent = exec.scratch.allocate("attention.d_latent", dtype, {tokens, kv_lora_rank});
  const LinearBackward kv_b{
      .layer = &kv_b_proj, .dy = dkv, .saved = &saved.kv_b_proj, .dx = d_latent};
  if (has_q_lora) {
    const View dq_an =
        exec.scratch.allocate("attention.dq_an", dtype, {rows.outputs(), q_a_proj.out});
    const LinearBackward calls[] = {
        kv_b, {.layer = &q_b_proj, .dy = dq_wanted, .saved = &saved.q_b_proj, .dx = dq_an}};
    linear_backward(exec, calls);
    const View dq_a =
        exec.scratch.allocate("attention.dq_a", dtype, {rows.outputs(), q_a_proj.out});
    q_a_norm.backward(exec, dq_an, saved.q_a, saved.q_a_rstd, dq_a, false);
    const LinearBackward q_a{.layer = &q_a_proj, .dy = dq_a, .saved = &saved.q_a_proj, .dx = dxq};
    linear_backward(exec, {&q_a, 1});
  } else {
    const LinearBackward calls[] = {
        kv_b, {.layer = &q_proj, .dy = dq_wanted, .saved = &saved.q_proj, .dx = dxq}};
    linear_backward(exec, calls);
  }
  if (rows.wanted && dxn) scatter_rows(exec, dxq, rows.wanted_index, dxn, false);
  kv_a_norm.backward(exec, d_latent, saved.kv_a.slice_cols(0, kv_lora_rank), saved.kv_a_rstd,
                     dkv_a.slice_cols(0, kv_lora_rank), false);
  const LinearBackward kv_a{
      .layer = &kv_a_proj, .dy = dkv_a, .saved = &saved.kv_a_proj, .dx = dxn, .beta = 1.0};
  linear_backward(exec, {&kv_a, 1});
}

void Mla::decode(Exec& exec, const ConstView& positions, const ConstView& xn,
                 std::span<const CacheRow> caches, const View& y) const {
  ArenaScope saved_scope(exec.saved);
  ArenaScope scope(exec.scratch);
  const std::int64_t rows = xn.rows();
  const std::int64_t c = kv_lora_rank;
  const std::int64_t head_width = shape.nope + shape.rope;
  const std::int64_t kv_width = shape.nope + shape.value;
  MlaSaved saved;
  saved.xn = exec.saved.allocate("decode.xn", exec.dtype, {rows, xn.cols()});
  exec.device.run(kernels::AddScaled{.x = xn, .y = saved.xn, .accumulate = false});
  project_queries(exec, {.positions = positions}, saved);
  const View k_rope = saved.kv_a.slice_cols(c, shape.rope);
  rotate(exec, positions, saved.q, k_rope, false);

  ArenaList<ConstView> views(exec.scratch, "decode.caches", caches.size());
  ArenaList<std::int32_t> visible(exec.scratch, "decode.caches", caches.size());
  for (std::int64_t row = 0; row < rows; ++row) {
    const CacheRow& entry = caches[static_cast<std::size_t>(row)];
    const View slot = entry.cache.slice_rows(entry.length, 1);
    exec.device.run(kernels::AddScaled{
        .x = saved.latent.slice_rows(row, 1), .y = slot.slice_cols(0, c), .accumulate = false});
    exec.device.run(kernels::AddScaled{
        .x = k_rope.slice_rows(row, 1), .y = slot.slice_cols(c, shape.rope), .accumulate = false});
    views.push_back(entry.cache);
    visible.push_back(entry.length + 1);
  }

  // kv_b_proj is absorbed: its key rows act on the queries, its value rows on the summed latents.
  const LoraSlot* lora = kv_b_proj.lora ? &*kv_b_proj.lora : nullptr;
  const bool dora = lora != nullptr && lora->magnitude != nullptr;
  const std::int64_t r = lora != nullptr ? lora->a->value.shape()[0] : 0;
  const View q_latent =
      exec.scratch.allocate("decode.q_latent", exec.dtype, {rows, shape.heads * c});
  const View o_latent =
      exec.scratch.allocate("decode.o_latent", exec.dtype, {rows, shape.heads * c});
  const View o = exec.scratch.allocate("decode.o", exec.dtype, {rows, shape.heads * shape.value});
  const View low = lora != nullptr ? exec.scratch.allocate("decode.low_rank", exec.statistics(),
                                                           {rows, shape.heads * r})
                                   : View();
  const DoraGains gains = dora ? dora_gains(exec, kv_b_proj, exec.scratch) : DoraGains{};
  const auto gain_of = [&](std::int64_t row0, std::int64_t count) {
    return gains.gain.reshape({1, kv_b_proj.out}).slice_cols(row0, count).reshape({count});
  };

  const auto heads = static_cast<std::size_t>(shape.heads);
  ArenaList<GemmProblem> low_problems(exec.scratch, "decode.products", heads);
  ArenaList<GemmProblem> problems(exec.scratch, "decode.products", heads);
  for (std::int64_t h = 0; h < shape.heads; ++h) {
    const std::int64_t row0 = h * kv_width;
    const View q_nope = saved.q.slice_cols(h * head_width, shape.nope);
    if (dora) {
      exec.device.run(
          kernels::ScaleColumns{.x = q_nope, .factor = gain_of(row0, shape.nope), .y = q_nope});
    }
    GemmProblem problem{.a = q_nope,
                        .b = kv_b_proj.weight.data.slice_rows(row0, shape.nope),
                        .b_scale = kv_b_proj.weight.scale,
                        .b_row0 = row0,
                        .c = q_latent.slice_cols(h * c, c)};
    if (lora != nullptr) {
      low_problems.push_back({.a = q_nope,
                              .b = lora->b->value.view().slice_rows(row0, shape.nope),
                              .c = low.slice_cols(h * r, r),
                              .alpha = lora->scaling});
      problem.low_rank_a = low.slice_cols(h * r, r);
      problem.low_rank_b = lora->a->value.view();
    }
    problems.push_back(problem);
  }
  if (!low_problems.empty()) exec.device.run(Gemm{low_problems.span()});
  exec.device.run(Gemm{problems.span()});

  exec.device.run(kernels::AttentionDecode{.heads = shape.heads,
                                           .latent = static_cast<int>(c),
                                           .rope = shape.rope,
                                           .scale = softmax_scale,
                                           .q_latent = q_latent,
                                           .q_rope = saved.q,
                                           .q_rope_stride = head_width,
                                           .q_rope_offset = shape.nope,
                                           .caches = views.span(),
                                           .visible = visible.span(),
                                           .o_latent = o_latent});

  low_problems.clear();
  problems.clear();
  for (std::int64_t h = 0; h < shape.heads; ++h) {
    const std::int64_t row0 = h * kv_width + shape.nope;
    GemmProblem problem{.a = o_latent.slice_cols(h * c, c),
                        .b = kv_b_proj.weight.data.slice_rows(row0, shape.value),
                        .b_scale = kv_b_proj.weight.scale,
                        .b_row0 = row0,
                        .c = o.slice_cols(h * shape.value, shape.value),
                        .trans_b = true};
    if (lora != nullptr) {
      low_problems.push_back({.a = o_latent.slice_cols(h * c, c),
                              .b = lora->a->value.view(),
                              .c = low.slice_cols(h * r, r),
                              .trans_b = true,
                              .alpha = lora->scaling});
      problem.low_rank_a = low.slice_cols(h * r, r);
      problem.low_rank_b = lora->b->value.view().slice_rows(row0, shape.value);
    }
    problems.push_back(problem);
  }
  if (!low_problems.empty()) exec.device.run(Gemm{low_problems.span()});
  exec.device.run(Gemm{problems.span()});
  if (dora) {
    for (std::int64_t h = 0; h < shape.heads; ++h) {
      const View head = o.slice_cols(h * shape.value, shape.value);
      exec.device.run(kernels::ScaleColumns{
          .x = head, .factor = gain_of(h * kv_width + shape.nope, shape.value), .y = head});
    }
  }
  LinearSaved out_saved;
  const LinearForward out{.layer = &o_proj, .x = o, .y = y, .beta = 1.0, .saved = &out_saved};
  linear_forward(exec, {&out, 1});
}

}  // namespace ds
