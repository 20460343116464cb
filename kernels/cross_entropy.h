// Softmax cross-entropy over rows of logits. Callers pass chunks of rows so that no logits of a
// whole batch ever exist.
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// loss[i] = lse[i] - logits[i, target[i]], in f32 (f64 for F64).
struct CrossEntropyForward {
  static constexpr std::string_view kName = "cross_entropy_forward";
  ConstView logits;   // [rows, vocab] F32 or F64
  ConstView targets;  // [rows] I32 in [0, vocab)
  View loss;          // [rows] same dtype as logits
  View lse;           // [rows]
};
void check(const CrossEntropyForward& op);
Cost cost(const CrossEntropyForward& op);
void run(CpuContext& context, const CrossEntropyForward& op);

// d_logits = (softmax(logits) - onehot(target)) * scale; may be the same memory as logits when it
// is of their dtype. BF16 for logits in F32 rounds each element once, as torch does where the head
// is BF16: the product that follows then has two BF16 operands.
struct CrossEntropyBackward {
  static constexpr std::string_view kName = "cross_entropy_backward";
  ConstView logits;    // [rows, vocab]
  ConstView targets;   // [rows] I32
  ConstView lse;       // [rows]
  double scale = 1.0;  // 1 / number of targets of the accumulation window
  View d_logits;       // [rows, vocab], dtype of logits, or BF16 for F32
};
void check(const CrossEntropyBackward& op);
Cost cost(const CrossEntropyBackward& op);
void run(CpuContext& context, const CrossEntropyBackward& op);

}  // namespace ds::kernels
