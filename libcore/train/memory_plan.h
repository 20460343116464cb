// What a training run will need, before anything is loaded.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libcore/config/lora_config.h"
#include "libcore/config/model_config.h"
#include "libcore/model/deepseek.h"

namespace ds {

struct MemoryRequest {
  bool full_parameters = false;
  bool use_dora = false;
  std::int64_t trainable = 0;  // parameters
  std::int64_t tokens = 0;     // of one micro-batch
  std::int64_t targets = 0;    // rows of the head; tokens when unknown
  std::int64_t longest = 0;    // longest row (sizes the rotary table)
  std::int64_t lora_rank = 0;
  DType dtype = DType::kF32;
  Recompute recompute = Recompute::kNone;
  int threads = 1;
};

// Activations of all layers that a token keeps for backward, by what making them again would cost.
struct ActivationGroup {
  std::string name;
  std::int64_t elements = 0;       // per token
  double flops = 0.0;              // per token, to make them again
  bool dropped_selective = false;  // made again under Recompute::kSelective
};
// Most elements per FLOP first. `length`: of a row (attention looks back over half of it on
// average).
std::vector<ActivationGroup> activation_groups(const ModelConfig& config, std::int64_t lora_rank,
                                               std::int64_t length);

// Bytes by purpose: "adapters", "gradients", "optimizer", "activations", "workspace", "tables". The
// mapped base weights are not in it: they are read from disk as needed and can be dropped at any
// time.
struct MemoryPlan {
  std::map<std::string, std::int64_t> parts;
  std::int64_t base_bytes = 0;  // of the checkpoint on disk
  std::int64_t total() const {
    std::int64_t sum = 0;
    for (const auto& [name, bytes] : parts) sum += bytes;
    return sum;
  }
};
MemoryPlan plan_memory(const ModelConfig& config, const MemoryRequest& request,
                       std::int64_t base_bytes);

// Throws Error(kResources) when the plan does not fit `available` bytes: names the need, the
// available memory, the largest part and the nearest option that would fit.
void require_memory(const ModelConfig& config, const MemoryRequest& request, const MemoryPlan& plan,
                    std::int64_t available);

}  // namespace ds
