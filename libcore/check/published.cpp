#include "libcore/check/published.h"

#include <algorithm>
#include <array>

namespace ds::check {
namespace {

using nlohmann::json;

constexpr std::array kModels{
    PublishedModel{"DeepSeek-V2", R"({
      "vocab_size": 102400, "hidden_size": 5120, "intermediate_size": 12288,
      "moe_intermediate_size": 1536, "num_hidden_layers": 60, "first_k_dense_replace": 1,
      "num_attention_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 160, "n_shared_experts": 2, "num_experts_per_tok": 6,
      "n_group": 8, "topk_group": 3, "scoring_func": "softmax",
      "topk_method": "group_limited_greedy", "norm_topk_prob": false,
      "routed_scaling_factor": 16.0, "rms_norm_eps": 1e-6, "rope_theta": 10000,
      "tie_word_embeddings": false, "attention_bias": false, "hidden_act": "silu",
      "bos_token_id": 100000, "eos_token_id": 100001, "max_position_embeddings": 163840,
      "rope_scaling": {"factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
        "beta_slow": 1, "mscale": {"any": [0.707, 1.0]}, "mscale_all_dim": {"any": [0.707, 1.0]}}})"},
    PublishedModel{"DeepSeek-V2-Lite", R"({
      "vocab_size": 102400, "hidden_size": 2048, "intermediate_size": 10944,
      "moe_intermediate_size": 1408, "num_hidden_layers": 27, "first_k_dense_replace": 1,
      "num_attention_heads": 16, "q_lora_rank": null, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
      "n_group": 1, "topk_group": 1, "scoring_func": "softmax", "topk_method": "greedy",
      "norm_topk_prob": false, "routed_scaling_factor": 1.0, "rms_norm_eps": 1e-6,
      "rope_theta": 10000, "tie_word_embeddings": false, "attention_bias": false,
      "hidden_act": "silu", "bos_token_id": 100000, "eos_token_id": 100001,
      "max_position_embeddings": 163840,
      "rope_scaling": {"factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
        "beta_slow": 1, "mscale": 0.707, "mscale_all_dim": 0.707}})"},
    PublishedModel{"DeepSeek-V3, R1 and V3.1", R"({
      "vocab_size": 129280, "hidden_size": 7168, "intermediate_size": 18432,
      "moe_intermediate_size": 2048, "num_hidden_layers": 61, "first_k_dense_replace": 3,
      "num_attention_heads": 128, "q_lora_rank": 1536, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 256, "n_shared_experts": 1, "num_experts_per_tok": 8,
      "n_group": 8, "topk_group": 4, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
      "norm_topk_prob": true, "routed_scaling_factor": 2.5, "rms_norm_eps": 1e-6,
      "rope_theta": 10000, "rope_interleave": true, "tie_word_embeddings": false,
      "attention_bias": false, "hidden_act": "silu", "bos_token_id": 0, "eos_token_id": 1,
      "max_position_embeddings": 163840,
      "rope_scaling": {"factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
        "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}})"},
    PublishedModel{"Moonlight-16B-A3B", R"({
      "vocab_size": 163840, "hidden_size": 2048, "intermediate_size": 11264,
      "moe_intermediate_size": 1408, "num_hidden_layers": 27, "first_k_dense_replace": 1,
      "num_attention_heads": 16, "q_lora_rank": null, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 64, "n_shared_experts": 2, "num_experts_per_tok": 6,
      "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
      "norm_topk_prob": true, "routed_scaling_factor": 2.446, "rms_norm_eps": 1e-5,
      "rope_theta": 50000, "rope_scaling": null, "tie_word_embeddings": false,
      "attention_bias": false, "hidden_act": "silu", "bos_token_id": 163584,
      "eos_token_id": {"any": [163585, 163586]}, "max_position_embeddings": 8192})"},
    PublishedModel{"Kimi-K2", R"({
      "vocab_size": 163840, "hidden_size": 7168, "intermediate_size": 18432,
      "moe_intermediate_size": 2048, "num_hidden_layers": 61, "first_k_dense_replace": 1,
      "num_attention_heads": 64, "q_lora_rank": 1536, "kv_lora_rank": 512,
      "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128,
      "n_routed_experts": 384, "n_shared_experts": 1, "num_experts_per_tok": 8,
      "n_group": 1, "topk_group": 1, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
      "norm_topk_prob": true, "routed_scaling_factor": 2.827, "rms_norm_eps": 1e-6,
      "rope_theta": 50000, "tie_word_embeddings": false, "attention_bias": false,
      "hidden_act": "silu", "bos_token_id": 163584, "eos_token_id": {"any": [163585, 163586]},
      "max_position_embeddings": {"any": [131072, 262144]},
      "rope_scaling": {"factor": {"any": [32, 64]}, "original_max_position_embeddings": 4096,
        "beta_fast": 1, "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0}})"},
};

std::string shown(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 120);
}

bool agrees(const json& found, const json& expected) {
  if (expected.is_object() && expected.contains("any")) {
    const json& any = expected.at("any");
    return std::any_of(any.begin(), any.end(), [&](const json& one) { return agrees(found, one); });
  }
  // A list of one end token is the token.
  if (found.is_array() && !expected.is_array()) {
    return !found.empty() && std::all_of(found.begin(), found.end(),
                                         [&](const json& one) { return agrees(one, expected); });
  }
  return found == expected;
}

void compare(const std::string& prefix, const json& expected, const json& found,
             std::vector<PublishedDifference>& out) {
  for (const auto& [key, value] : expected.items()) {
    if (!found.contains(key)) {
      // Single keys have defaults, and findings of their own when they are absent. transformers 5
      // writes the block under another name.
      if (value.is_object() && !value.contains("any") && !found.contains("rope_parameters")) {
        out.push_back({prefix + key, "absent", shown(value)});
      }
      continue;
    }
    const json& other = found.at(key);
    if (value.is_object() && !value.contains("any") && other.is_object()) {
      compare(prefix + key + ".", value, other, out);
    } else if (!agrees(other, value)) {
      out.push_back({prefix + key, shown(other), shown(value)});
    }
  }
}

}  // namespace

const PublishedModel* find_published(const json& config) {
  const auto same = [&](const json& published, const char* key) {
    return config.contains(key) && config.at(key) == published.at(key);
  };
  // V2-Lite and Moonlight share the sizes; vocabulary, else the router, tells them apart.
  for (const char* last : {"vocab_size", "scoring_func"}) {
    for (const PublishedModel& model : kModels) {
      const json published = json::parse(model.config);
      if (same(published, "hidden_size") && same(published, "num_hidden_layers") &&
          same(published, "n_routed_experts") && same(published, last)) {
        return &model;
      }
    }
  }
  return nullptr;
}

std::vector<PublishedDifference> compare_published(const PublishedModel& model,
                                                   const json& config) {
  std::vector<PublishedDifference> differences;
  compare("", json::parse(model.config), config, differences);
  return differences;
}

}  // namespace ds::check
