// Parameters and floating-point operations from a config alone (reference/cost-model.md sections 1
// to 4). One multiply-add is 2 operations; norms, softmax and activations count nothing, as in
// every published convention.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/config/lora_config.h"
#include "libcore/config/model_config.h"

namespace ds::profile {

// What a count includes. kCausal: attention over (s + 1) / 2 ~ s / 2 positions; kNoncausal: over s;
// kMegatron: causal without the router's product; k6n: matrix weights only, no attention.
enum class Convention { kCausal, kNoncausal, kMegatron, k6n };
std::optional<Convention> parse_convention(std::string_view spelling);

// What is trained decides the backward pass of each weight: trained 2 + 2 + 2 operations a token
// (forward, input gradient, weight gradient), frozen 2 + 2, below everything trained 2.
struct CostRequest {
  Convention convention = Convention::kCausal;
  std::int64_t seq_len = 4096;
  bool mtp = false;   // the multi-token-prediction layers with their copied embedding and head
  bool train = true;  // false: forward only
  // The forward pass of one more token that attends to `seq_len` positions, itself included, in the
  // latent cache (section 4, absorbed); needs train == false.
  bool decode = false;
  // Adapters; absent: every parameter is trained.
  std::optional<std::vector<LoraTarget>> lora;
};

// Per token, but `parameters` and `activated`, which count the model's (adapters excluded).
struct CostRow {
  std::string name;  // "embedding", "layers.3.attention", "layers.3.mlp", "head", "mtp.0.mlp"
  std::string kind;  // embedding, attention, dense, moe, head, projection
  std::int64_t parameters = 0;
  std::int64_t activated = 0;  // touched by one token
  std::int64_t adapter_parameters = 0;
  std::int64_t forward_flops = 0;
  std::int64_t input_gradient_flops = 0;
  std::int64_t weight_gradient_flops = 0;
  std::int64_t train_flops() const {
    return forward_flops + input_gradient_flops + weight_gradient_flops;
  }
};

// The rows sum to the totals exactly. Throws Error(kUsage) for `mtp` when the config has no such
// layer.
struct CostTable {
  std::vector<CostRow> rows;
  CostRow total;
};
CostTable count_costs(const ModelConfig& config, const CostRequest& request);

// A decode step: one token of each of `batch` sequences.
struct DecodeStep {
  std::int64_t batch = 1;
  std::int64_t seq_len = 0;      // as in the request
  std::int64_t cache_bytes = 0;  // of one position in one layer
};
// Bytes a decode step moves for a row of count_costs(): the weights it touches once, `weight_width`
// bytes each, and the cache entries it reads. Of E experts with K a token, batch B reaches
// E (1 - (1 - K / E)^B) when tokens choose evenly. Adapters and activations count nothing.
double decode_bytes(const ModelConfig& config, const CostRow& row, const DecodeStep& step,
                    double weight_width);

// Bytes of the latent cache a token needs in all layers: (kv_lora + rope) numbers a layer for
// `bf16` and `f32`; `fp8` is FlashMLA's layout: latent in 8 bits, an F32 scale for each 128 of
// them, rope part in BF16.
std::int64_t kv_cache_bytes_per_token(const ModelConfig& config, std::string_view dtype, bool mtp);

}  // namespace ds::profile
