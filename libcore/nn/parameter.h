// Trainable values and their gradients.
#pragma once

#include <cstdint>
#include <string>

#include "libcore/tensor/tensor.h"

namespace ds {

// What LoRA+ and AdamW need to know of a parameter (reference/training.md section 3).
enum class ParameterRole {
  kLoraA,
  kLoraB,          // 1-D DoRA magnitudes are trained with these
  kLoraEmbedding,  // A and B of an adapted embedding
  kMagnitude,      // DoRA's lora_magnitude_vector
  kWeight,         // full-parameter training: a matrix
  kNorm,           // full-parameter training: a 1-D norm weight
};

// One trainable tensor. The value is F32 (F64 in gradient checks); so is the gradient, which the
// backward pass adds to.
struct Parameter {
  std::string name;  // PEFT's name without "base_model.model.", e.g.
                     // "model.layers.0.self_attn.q_a_proj.lora_A.weight"; or the checkpoint's name
  ParameterRole role = ParameterRole::kLoraA;
  Tensor value;
  Tensor grad;            // same shape; absent while nothing is trained
  bool trainable = true;  // false: a stage leaves it alone
  bool skipped = false;   // selective computation leaves its layer out of this update
  bool touched = false;   // a backward pass of this window added to grad; an expert without tokens
                          // stays untouched and is skipped by the optimizer, as torch skips None
  // Whether backward adds to grad.
  bool takes_gradient() const { return trainable && !skipped && grad; }
};

}  // namespace ds
