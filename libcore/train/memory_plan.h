// What a training run will need, before anything is loaded.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libcore/config/lora_config.h"
#include "libcore/config/model_config.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/model/deepseek.h"

namespace ds {

// Whether the base is read layer by layer instead of staying in memory.
enum class Streaming { kAuto, kAlways, kNever };

struct MemoryRequest {
  bool full_parameters = false;
  bool use_dora = false;
  std::int64_t trainable = 0;      // parameters
  std::int64_t tokens = 0;         // of one micro-batch
  std::int64_t micro_batches = 1;  // of an update
  std::int64_t targets = 0;        // rows of the head; tokens when unknown
  std::int64_t longest = 0;        // longest row (sizes the rotary table)
  std::int64_t lora_rank = 0;
  DType dtype = DType::kF32;
  Recompute recompute = Recompute::kNone;
  Streaming streaming = Streaming::kAuto;
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

// The frozen base on disk, by how a pass through the model walks over it.
struct BaseSize {
  std::int64_t total = 0;      // of all tensors
  std::int64_t walked = 0;     // layers and head: what a forward pass reads
  std::int64_t layers = 0;     // of that, what a backward pass reads at most
  std::int64_t largest = 0;    // of one layer or of the head
  std::int64_t embedding = 0;  // the embedding table, of which only the rows of the tokens are read
};
// From the headers alone.
BaseSize base_size(const ModelConfig& config, const Checkpoint& checkpoint);

// Bytes by purpose: "adapters", "gradients", "optimizer", "activations", "workspace", "tables",
// "base" (mapped pages) and "program" (what the process held before).
struct MemoryPlan {
  std::map<std::string, std::int64_t> parts;
  std::int64_t base_bytes = 0;  // of the checkpoint on disk
  Recompute recompute = Recompute::kNone;
  // Bytes of the weight stream, when the base does not stay in memory: layers come and go, and a
  // window's micro-batches pass each layer together. 0: it stays.
  std::int64_t window = 0;
  bool streams() const { return window > 0; }
  std::int64_t total() const {
    std::int64_t sum = 0;
    for (const auto& [name, bytes] : parts) sum += bytes;
    return sum;
  }
};
// Everything but "base" and "program", for one micro-batch at a time with the request's
// recomputation.
MemoryPlan plan_memory(const ModelConfig& config, const MemoryRequest& request);

// The plan that fits `available` bytes, `program` of which are in use already. In this order: the
// base in memory and what the request says; more recomputation; the base streamed; both. The result
// has the same bits whichever. Throws Error(kResources) when none fits: names the smallest need,
// the available memory, the largest part and what would help.
MemoryPlan fit_memory(const ModelConfig& config, const MemoryRequest& request, const BaseSize& base,
                      std::int64_t program, std::int64_t available);

}  // namespace ds
