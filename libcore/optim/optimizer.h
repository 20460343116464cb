// AdamW over LoRA+ groups, with clipping (reference/training.md sections 3, 4).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/adamw.h"
#include "libcore/nn/parameter.h"
#include "libcore/tensor/device.h"

namespace ds {

struct OptimizerConfig {
  double learning_rate = 1e-4;
  bool lora_plus = false;
  double loraplus_lr_ratio = 16.0;
  double loraplus_lr_embedding = 1e-6;
  double weight_decay = 0.0;
  double beta1 = 0.9;
  double beta2 = 0.999;
  double epsilon = 1e-8;
  double max_grad_norm = 1.0;  // 0: no clipping
};

// PEFT's create_loraplus_optimizer groups: an embedding's adapters are kEmbedding; a name with
// "lora_B" or a 1-D tensor is kB, or kBNoDecay when the name has "bias"; the rest is kA. RMSNorm is
// not among the norms PEFT exempts from decay (only nn.LayerNorm, which this family does not have).
// Without LoRA+ there is one group, kA, as in torch's AdamW over a plain list.
enum class LrGroup { kA, kEmbedding, kB, kBNoDecay };
LrGroup lr_group(const Parameter& parameter, bool lora_plus);
// Base rate of a group, before the schedule.
double group_learning_rate(const OptimizerConfig& config, LrGroup group);
// Decoupled weight decay of a group: 0 for kBNoDecay.
double group_weight_decay(const OptimizerConfig& config, LrGroup group);

struct StepReport {
  double grad_norm = 0.0;  // global L2 norm before clipping
  // Of every parameter's gradient before clipping; 0: untouched. Until the next step.
  std::span<const double> squared_norms;
  double lr_a = 0.0;  // rates used
  double lr_b = 0.0;
  // Name of the first parameter whose gradient is NaN or infinite; empty when all are finite. When
  // set, no value, moment or count was changed (the gradients are dropped).
  std::string non_finite;
  std::int64_t updated = 0;  // tensors updated
};

// Holds first and second moments (F32) and a step count per parameter; a parameter that is not
// trainable or was not touched in this window is skipped: no decay, no moments, no count.
class Optimizer {
 public:
  // The parameters must outlive the optimizer; their order is part of a checkpoint. Moments are
  // created on a parameter's first update.
  Optimizer(OptimizerConfig config, std::vector<Parameter*> parameters);

  // One update with every group's rate multiplied by lr_factor; afterwards gradients are zero and
  // `touched` false for all parameters. Throws Error(kInternal) for a touched parameter without a
  // gradient.
  StepReport step(Device& device, double lr_factor);
  // Drops gradients without an update. Only touched ones cost time: the gradient of an untouched
  // parameter is zero already.
  void zero_grad();
  // Forgets all moments and counts (--stage_reset_optimizer).
  void reset();

  struct State {
    Tensor exp_avg;
    Tensor exp_avg_sq;
    std::int64_t step = 0;
  };
  const std::vector<Parameter*>& parameters() const { return parameters_; }
  // One per parameter, same order; tensors absent while step is 0.
  std::vector<State>& states() { return states_; }
  const std::vector<State>& states() const { return states_; }
  const OptimizerConfig& config() const { return config_; }

 private:
  OptimizerConfig config_;
  std::vector<Parameter*> parameters_;
  std::vector<State> states_;
  std::vector<LrGroup> groups_;
  // Of the step at work; kept for their memory.
  std::vector<std::size_t> live_;
  std::vector<ConstView> gradients_;
  std::vector<double> squares_;
  std::vector<double> squared_norms_;
  std::vector<kernels::AdamWItem> items_;
};

}  // namespace ds
