#include "libcore/train/step_estimate.h"

#include <algorithm>

#include "libcore/base/system.h"
#include "libcore/config/lora_config.h"
#include "libcore/nn/machine_peaks.h"

namespace ds {

namespace {

// Forward FLOPs of `tokens` rows of `length`, every one of which predicts.
double forward_flops(const ModelConfig& c, double tokens, double length) {
  const auto embedding = static_cast<double>(c.vocab_size * c.hidden_size);
  const double products =
      static_cast<double>(activated_parameters(c)) - (c.tie_word_embeddings ? 0.0 : embedding);
  // Two products over half of the row on average.
  const double attention =
      length * static_cast<double>(c.num_hidden_layers * c.num_attention_heads *
                                   (c.q_head_dim() + c.v_head_dim));
  return tokens * (2.0 * products + attention);
}

// The product most of the time goes into: an expert's, or the dense layer's.
double product_rate_of(const ModelConfig& c, std::int64_t tokens, const Checkpoint& checkpoint,
                       Device& device) {
  const bool sparse = c.n_routed_experts > 0;
  const std::int64_t rows =
      sparse ? std::max<std::int64_t>(1, tokens * c.num_experts_per_tok / c.n_routed_experts)
             : tokens;
  const std::int64_t width = sparse ? c.moe_intermediate_size : c.intermediate_size;
  const auto entry =
      checkpoint.find(sparse ? "model.layers." + std::to_string(c.num_hidden_layers - 1) +
                                   ".mlp.experts.0.up_proj.weight"
                             : "model.layers.0.mlp.up_proj.weight");
  const DType dtype = entry.tensor != nullptr ? entry.tensor->dtype : DType::kF32;
  // Large enough to be dealt to all threads, small enough to be quick.
  constexpr std::int64_t kMost = 512;
  return product_rate(device, std::min(rows, kMost), c.hidden_size, std::min(width, kMost), dtype);
}

}  // namespace

StepEstimate estimate_step(const ModelConfig& config, const MemoryRequest& request,
                           const MemoryPlan& plan, const BaseSize& base,
                           const Checkpoint& checkpoint, Device& device) {
  StepEstimate estimate;
  const auto tokens = static_cast<double>(request.tokens * request.micro_batches);
  // Forward, the gradient of the inputs (as many products), and forward again.
  double passes = 2.0;
  if (request.full_parameters) passes += 1.0;
  if (plan.recompute == Recompute::kFull) passes += 1.0;
  estimate.flops = passes * forward_flops(config, tokens, static_cast<double>(request.longest));
  estimate.rate = product_rate_of(config, request.tokens, checkpoint, device);
  estimate.arithmetic_seconds = estimate.flops / estimate.rate;
  if (plan.streams()) {
    estimate.disk_bytes = base.walked + base.layers;
    const auto& files = checkpoint.files();
    const auto largest = std::max_element(
        files.begin(), files.end(),
        [](const auto& a, const auto& b) { return a->file().size() < b->file().size(); });
    estimate.disk_rate = disk_read_rate((*largest)->path());
    if (estimate.disk_rate > 0.0) {
      estimate.disk_seconds = static_cast<double>(estimate.disk_bytes) / estimate.disk_rate;
    }
  }
  return estimate;
}

}  // namespace ds
