// Linear layers, with LoRA riding along.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

#include "libcore/nn/exec.h"
#include "libcore/nn/parameter.h"

namespace ds {

// A frozen matrix as it lies on disk: data in its own dtype, FP8 block scales when it is FP8.
struct WeightRef {
  ConstView data;   // [out, in]
  ConstView scale;  // F8_E4M3 only: [ceil(out/128), ceil(in/128)]
};

// The adapter of one linear layer (reference/training.md section 1).
struct LoraSlot {
  Parameter* a = nullptr;          // [r, in]
  Parameter* b = nullptr;          // [out, r]
  Parameter* magnitude = nullptr;  // [out], DoRA only
  double scaling = 1.0;            // alpha / r or alpha / sqrt(r)
  double dropout = 0.0;
  std::uint64_t id = 0;  // of this module, for the dropout stream
  Tensor base_norm2;     // [out] squared row norms of the base weight, DoRA only
};

// y = x W^T + bias + scaling * dropout(x) A^T B^T; DoRA scales each output by magnitude / norm.
struct Linear {
  std::string path;  // "model.layers.0.self_attn.q_a_proj"
  std::int64_t in = 0;
  std::int64_t out = 0;
  WeightRef weight;
  ConstView bias;                         // optional [out], statistics dtype
  Parameter* weight_parameter = nullptr;  // full-parameter training; weight.data views its value
  Parameter* bias_parameter = nullptr;
  std::optional<LoraSlot> lora;

  bool trainable() const;
};

// What backward needs. x may be replaced by an equal recomputed copy.
struct LinearSaved {
  ConstView x;     // [rows, in], the caller's
  ConstView p;     // [rows, r] scaling * dropout(x) A^T
  ConstView u;     // [rows, out] DoRA: output before the column gains
  ConstView gain;  // [out] DoRA: magnitude / norm
  ConstView norm;  // [out] DoRA: row norms of W + scaling B A
};

struct LinearForward {
  const Linear* layer = nullptr;
  ConstView x;                   // [rows, in]
  View y;                        // [rows, out]
  double beta = 0.0;             // 1: y += instead of y =
  LinearSaved* saved = nullptr;  // never null; p, u, gain, norm are allocated in exec.saved
};
// All calls run together: layers that share an input, or experts. Calls without rows are skipped.
void linear_forward(Exec& exec, std::span<const LinearForward> calls);

struct LinearBackward {
  const Linear* layer = nullptr;
  ConstView dy;  // [rows, out]
  const LinearSaved* saved = nullptr;
  View dx;            // [rows, in]; absent when nothing upstream needs it
  double beta = 0.0;  // 1: dx +=
};
// Adds to the gradients of trainable parameters and marks them touched. The dx of one call must not
// overlap another's.
void linear_backward(Exec& exec, std::span<const LinearBackward> calls);

// DoRA's column gains magnitude / ||W + scaling B A||_row and those norms, allocated in `arena`.
struct DoraGains {
  View gain;  // [out] statistics dtype
  View norm;  // [out]
};
DoraGains dora_gains(Exec& exec, const Linear& layer, Arena& arena);

}  // namespace ds
