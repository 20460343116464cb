#include <algorithm>

#include "libcore/config/model_config.h"

namespace ds {
namespace {

std::int64_t attention_parameters(const ModelConfig& config) {
  const std::int64_t hidden = config.hidden_size;
  const std::int64_t heads = config.num_attention_heads;
  const std::int64_t q_width = heads * config.q_head_dim();
  const std::int64_t kv_a = config.kv_lora_rank + config.qk_rope_head_dim;
  std::int64_t count =
      config.q_lora_rank > 0 ? config.q_lora_rank * (hidden + q_width) : hidden * q_width;
  count += hidden * kv_a;
  count += config.kv_lora_rank * heads * (config.qk_nope_head_dim + config.v_head_dim);
  count += heads * config.v_head_dim * hidden;
  if (config.attention_bias) count += config.q_lora_rank + kv_a + hidden;
  return count;
}

std::int64_t layer_norm_parameters(const ModelConfig& config) {
  return 2 * config.hidden_size + config.q_lora_rank + config.kv_lora_rank;
}

std::int64_t router_parameters(const ModelConfig& config) {
  const std::int64_t bias = config.method == RouterMethod::kNoauxTc ? config.n_routed_experts : 0;
  return config.n_routed_experts * config.hidden_size + bias;
}

std::int64_t moe_layers(const ModelConfig& config) {
  if (config.n_routed_experts == 0) return 0;
  return std::max<std::int64_t>(config.num_hidden_layers - config.first_k_dense_replace, 0);
}

ParameterCounts count_with_experts(const ModelConfig& config, std::int64_t experts) {
  const std::int64_t layers = config.num_hidden_layers;
  const std::int64_t moe = moe_layers(config);
  const std::int64_t one_expert = 3 * config.hidden_size * config.moe_intermediate_size;
  ParameterCounts out;
  out.embedding = config.vocab_size * config.hidden_size;
  out.head = config.tie_word_embeddings ? 0 : config.vocab_size * config.hidden_size;
  out.attention = layers * attention_parameters(config);
  out.mlp = (layers - moe) * 3 * config.hidden_size * config.intermediate_size;
  out.shared_experts = moe * config.n_shared_experts * one_expert;
  out.experts = moe * experts * one_expert;
  out.router = moe * router_parameters(config);
  out.norms = layers * layer_norm_parameters(config) + config.hidden_size;
  return out;
}

}  // namespace

ParameterCounts count_parameters(const ModelConfig& config) {
  return count_with_experts(config, config.n_routed_experts);
}

std::int64_t activated_parameters(const ModelConfig& config) {
  return count_with_experts(config, config.num_experts_per_tok).total();
}

}  // namespace ds
