#include "libcore/nn/block.h"

#include <algorithm>
#include <optional>

#include "libcore/nn/row_ops.h"

namespace ds {

bool Block::trainable() const {
  const auto takes = [](const Parameter* p) { return p != nullptr && p->takes_gradient(); };
  const auto mlp_takes = [](const auto& m) {
    return m.gate_proj.trainable() || m.up_proj.trainable() || m.down_proj.trainable();
  };
  const Mla& a = attention;
  if (takes(attention_norm.parameter) || takes(mlp_norm.parameter) || takes(a.q_a_norm.parameter) ||
      takes(a.kv_a_norm.parameter)) {
    return true;
  }
  for (const Linear* linear :
       {&a.q_proj, &a.q_a_proj, &a.q_b_proj, &a.kv_a_proj, &a.kv_b_proj, &a.o_proj}) {
    if (linear->trainable()) return true;
  }
  if (mlp && mlp_takes(*mlp)) return true;
  if (!moe) return false;
  if (takes(moe->gate_parameter) || (moe->shared && mlp_takes(*moe->shared))) return true;
  return std::any_of(moe->experts.begin(), moe->experts.end(), mlp_takes);
}

// h_out = h_mid + mlp(norm(h_mid)).
void Block::mlp_forward(Exec& exec, const View& h_out, BlockSaved& saved) const {
  const OpScope part(exec.device, "mlp");
  const std::int64_t tokens = saved.h_mid.rows();
  saved.mlp_rstd = exec.saved.allocate("mlp.rstd", exec.statistics(), {tokens});
  saved.mlp_xn = exec.inputs().allocate("mlp.xn", exec.dtype, {tokens, saved.h_mid.cols()});
  mlp_norm.forward(exec, saved.h_mid, saved.mlp_xn, saved.mlp_rstd);
  copy_rows(exec, saved.h_mid, h_out);
  if (moe) {
    moe->forward(exec, saved.mlp_xn, h_out, saved.moe);
  } else {
    mlp->forward(exec, saved.mlp_xn, h_out, saved.mlp);
  }
}

void Block::forward(Exec& whole, const Rows& rows, const ConstView& h, const View& h_out,
                    BlockSaved& saved) const {
  Exec exec = whole;
  exec.frozen = !trainable();
  const OpScope layer(exec.device, "layer", index);
  ArenaScope scope(exec.scratch);
  const std::int64_t tokens = h.rows();
  const std::int64_t hidden = h.cols();
  saved.attention_rstd = exec.saved.allocate("attention.rstd", exec.statistics(), {tokens});
  saved.h_mid = exec.saved.allocate("block.h_mid", exec.dtype, {rows.outputs(), hidden});
  {
    const OpScope part(exec.device, "attention");
    // What is dropped of this half makes room for the other.
    std::optional<ArenaScope> dropped;
    if (exec.selective) dropped.emplace(exec.scratch);
    saved.attention.xn = exec.inputs().allocate("attention.xn", exec.dtype, {tokens, hidden});
    attention_norm.forward(exec, h, saved.attention.xn, saved.attention_rstd);
    if (rows.wanted) {
      gather_rows(exec, h, rows.wanted, saved.h_mid);
    } else {
      copy_rows(exec, h, saved.h_mid);
    }
    attention.forward(exec, rows, saved.h_mid, saved.attention);
  }
  mlp_forward(exec, h_out, saved);
}

void Block::restore_mlp(Exec& exec, BlockSaved& saved) const {
  const OpScope again(exec.device, "recompute");
  const View& mid = saved.h_mid;
  saved.mlp_xn = exec.saved.allocate("mlp.xn", exec.dtype, {mid.rows(), mid.cols()});
  mlp_norm.forward(exec, mid, saved.mlp_xn, saved.mlp_rstd);
  saved.moe.xn = saved.mlp_xn;
  if (mlp) mlp->restore(exec, saved.mlp_xn, saved.mlp);
  if (moe && moe->shared) moe->shared->restore(exec, saved.mlp_xn, saved.moe.shared);
}

void Block::restore_attention(Exec& exec, const Rows& rows, const ConstView& h,
                              BlockSaved& saved) const {
  const OpScope again(exec.device, "recompute");
  saved.attention.xn = exec.saved.allocate("attention.xn", exec.dtype, {h.rows(), h.cols()});
  attention_norm.forward(exec, h, saved.attention.xn, saved.attention_rstd);
  attention.restore(exec, rows, saved.attention);
}

void Block::backward(Exec& whole, const Rows& rows, const ConstView& h, BlockSaved& saved,
                     const View& d_out, const View& dh, bool need_dx) const {
  Exec exec = whole;
  exec.frozen = !trainable();
  const OpScope layer(exec.device, "layer", index);
  const OpScope backward(exec.device, "backward");
  ArenaScope scope(exec.scratch);
  {
    const OpScope part(exec.device, "mlp");
    ArenaScope mlp_scope(exec.scratch);
    ArenaScope restored(exec.saved);
    const View dxn = exec.scratch.allocate("block.dxn", exec.dtype, {d_out.rows(), d_out.cols()});
    if (exec.selective) restore_mlp(exec, saved);
    if (moe) {
      moe->backward(exec, d_out, saved.moe, dxn);
    } else {
      mlp->backward(exec, d_out, saved.mlp, dxn, false);
    }
    mlp_norm.backward(exec, dxn, saved.h_mid, saved.mlp_rstd, d_out, true);
  }
  const OpScope part(exec.device, "attention");
  ArenaScope restored(exec.saved);
  if (exec.selective) restore_attention(exec, rows, h, saved);
  const bool need_dxn = need_dx || attention_norm.parameter != nullptr;
  const View dxn =
      need_dxn ? exec.scratch.allocate("block.dxn", exec.dtype, {h.rows(), h.cols()}) : View();
  attention.backward(exec, rows, d_out, saved.attention, dxn);
  if (!need_dxn) return;
  if (rows.wanted) scatter_rows(exec, d_out, rows.wanted_index, dh, false);
  attention_norm.backward(exec, dxn, h, saved.attention_rstd, dh, true);
}

void Block::decode(Exec& exec, const ConstView& positions, const View& h,
                   std::span<const CacheRow> caches) const {
  const OpScope layer(exec.device, "layer", index);
  ArenaScope saved_scope(exec.saved);
  BlockSaved saved;
  const std::int64_t rows = h.rows();
  saved.attention_rstd = exec.saved.allocate("attention.rstd", exec.statistics(), {rows});
  saved.attention.xn = exec.saved.allocate("attention.xn", exec.dtype, {rows, h.cols()});
  saved.h_mid = exec.saved.allocate("block.h_mid", exec.dtype, {rows, h.cols()});
  {
    const OpScope part(exec.device, "attention");
    attention_norm.forward(exec, h, saved.attention.xn, saved.attention_rstd);
    copy_rows(exec, h, saved.h_mid);
    attention.decode(exec, positions, saved.attention.xn, caches, saved.h_mid);
  }
  mlp_forward(exec, h, saved);
}

}  // namespace ds
