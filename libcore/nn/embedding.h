// Token embedding, with an optional adapter.
#pragma once

#include "libcore/nn/linear.h"

namespace ds {

struct EmbeddingSaved {
  ConstView p;  // [tokens, r] rows of A
};

// y = table[ids] + scaling * A[ids] B^T, A kept as [vocab, r] (reference/training.md section 1).
struct Embedding {
  WeightRef table;                 // [vocab, hidden]
  Parameter* parameter = nullptr;  // full-parameter training; table views its value
  std::optional<LoraSlot> lora;    // a [vocab, r], b [hidden, r]

  bool trainable() const;
  void forward(Exec& exec, const ConstView& ids, const View& y, EmbeddingSaved& saved) const;
  void backward(Exec& exec, const ConstView& ids, const ConstView& dy,
                const EmbeddingSaved& saved) const;
};

}  // namespace ds
