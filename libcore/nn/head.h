// Final norm, vocabulary head and loss, over chunks of rows.
#pragma once

#include <span>
#include <vector>

#include "libcore/nn/linear.h"
#include "libcore/nn/rms_norm.h"

namespace ds {

struct LossSums {
  double loss = 0.0;  // sum of token cross-entropies (never a mean)
  std::int64_t targets = 0;
  std::int64_t non_finite = -1;  // first row whose loss is NaN or infinite, -1: none
};

struct Head {
  RmsNorm norm;
  Linear lm_head;

  bool trainable() const;
  // Loss of `h` rows against `targets`; with dh, also the gradient of sum * grad_scale w.r.t. h,
  // and the gradients of whatever is trained here. Logits exist for a chunk of rows at a time only.
  // `each`, when given, receives every row's own loss.
  LossSums loss(Exec& exec, const ConstView& h, const ConstView& targets, double grad_scale,
                const View& dh, std::vector<double>* each) const;
  // logits[rows, vocab] F32 (F64 for F64) of h rows. In bf16 they are rounded to bf16 first, as
  // transformers returns them; not with `exact`, which gives those that the loss is taken from.
  void logits(Exec& exec, const ConstView& h, const View& logits, bool exact = false) const;
};

}  // namespace ds
