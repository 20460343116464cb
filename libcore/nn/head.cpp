#include "libcore/nn/head.h"

#include <algorithm>
#include <cmath>

#include "kernels/cross_entropy.h"
#include "kernels/elementwise.h"

namespace ds {

namespace {
// Elements of a chunk of logits: what the product writes, the loss reads and the gradient
// overwrites while a last-level cache still holds it (16 MiB in f32); but enough rows for reading
// the weights to pay, as long as that stays small beside a layer's activations (64 MiB).
constexpr std::int64_t kCachedElements = std::int64_t{4} << 20;
constexpr std::int64_t kMostElements = std::int64_t{16} << 20;
constexpr std::int64_t kFewRows = 128;

std::int64_t chunk_rows(std::int64_t rows, std::int64_t vocab) {
  const std::int64_t enough = std::min(kFewRows, kMostElements / vocab);
  return std::min(rows, std::max({std::int64_t{16}, enough, kCachedElements / vocab}));
}

double loss_at(const ConstView& loss, std::int64_t i) {
  return loss.dtype() == DType::kF64 ? loss.as<double>()[i]
                                     : static_cast<double>(loss.as<float>()[i]);
}
}  // namespace

bool Head::trainable() const { return norm.parameter != nullptr || lm_head.trainable(); }

LossSums Head::loss(Exec& exec, const ConstView& h, const ConstView& targets, double grad_scale,
                    const View& dh, std::vector<double>* each) const {
  const OpScope part_scope(exec.device, "head");
  LossSums sums;
  const std::int64_t rows = h.rows();
  sums.targets = rows;
  if (rows == 0) return sums;
  const std::int64_t vocab = lm_head.out;
  const std::int64_t chunk = chunk_rows(rows, vocab);
  ArenaScope scope(exec.scratch);
  const View xn = exec.scratch.allocate("head.xn", exec.dtype, {chunk, h.cols()});
  const View rstd = exec.scratch.allocate("head.rstd", exec.statistics(), {chunk});
  const View logits = exec.scratch.allocate("head.logits", exec.statistics(), {chunk, vocab});
  const View loss = exec.scratch.allocate("head.loss", exec.statistics(), {chunk});
  const View lse = exec.scratch.allocate("head.lse", exec.statistics(), {chunk});
  const View dxn = dh ? exec.scratch.allocate("head.dxn", exec.dtype, {chunk, h.cols()}) : View();
  // In BF16 a buffer of its own, else in place.
  const View d_logits = dh && exec.dtype != exec.statistics()
                            ? exec.scratch.allocate("head.d_logits", exec.dtype, {chunk, vocab})
                            : logits;

  for (std::int64_t begin = 0; begin < rows; begin += chunk) {
    const std::int64_t n = std::min(chunk, rows - begin);
    ArenaScope saved_scope(exec.saved);
    const ConstView x = h.slice_rows(begin, n);
    const ConstView wanted = targets.reshape({1, rows}).slice_cols(begin, n).reshape({n});
    const View part = logits.slice_rows(0, n);
    const View part_rstd = rstd.reshape({1, chunk}).slice_cols(0, n).reshape({n});
    const View part_loss = loss.reshape({1, chunk}).slice_cols(0, n).reshape({n});
    const View part_lse = lse.reshape({1, chunk}).slice_cols(0, n).reshape({n});
    norm.forward(exec, x, xn.slice_rows(0, n), part_rstd);
    LinearSaved saved;
    const LinearForward head{
        .layer = &lm_head, .x = xn.slice_rows(0, n), .y = part, .saved = &saved};
    linear_forward(exec, {&head, 1});
    exec.device.run(kernels::CrossEntropyForward{
        .logits = part, .targets = wanted, .loss = part_loss, .lse = part_lse});
    for (std::int64_t i = 0; i < n; ++i) {
      const double value = loss_at(part_loss, i);
      if (!std::isfinite(value) && sums.non_finite < 0) sums.non_finite = begin + i;
      sums.loss += value;
      if (each != nullptr) each->push_back(value);
    }
    if (!dh) continue;
    const OpScope backward(exec.device, "backward");
    const View dy = d_logits.slice_rows(0, n);
    exec.device.run(kernels::CrossEntropyBackward{
        .logits = part, .targets = wanted, .lse = part_lse, .scale = grad_scale, .d_logits = dy});
    const LinearBackward back{
        .layer = &lm_head, .dy = dy, .saved = &saved, .dx = dxn.slice_rows(0, n)};
    linear_backward(exec, {&back, 1});
    norm.backward(exec, dxn.slice_rows(0, n), x, part_rstd, dh.slice_rows(begin, n), false);
  }
  return sums;
}

void Head::logits(Exec& exec, const ConstView& h, const View& logits, bool exact) const {
  const OpScope part(exec.device, "head");
  const std::int64_t rows = h.rows();
  ArenaScope scope(exec.scratch);
  ArenaScope saved_scope(exec.saved);
  const View xn = exec.scratch.allocate("head.xn", exec.dtype, {rows, h.cols()});
  const View rstd = exec.scratch.allocate("head.rstd", exec.statistics(), {rows});
  norm.forward(exec, h, xn, rstd);
  const bool rounded = exec.dtype == DType::kBF16 && !exact;
  const View y =
      rounded ? exec.scratch.allocate("head.bf16", exec.dtype, {rows, lm_head.out}) : logits;
  LinearSaved saved;
  const LinearForward head{.layer = &lm_head, .x = xn, .y = y, .saved = &saved};
  linear_forward(exec, {&head, 1});
  if (rounded) exec.device.run(kernels::AddScaled{.x = y, .y = logits, .accumulate = false});
}

}  // namespace ds
