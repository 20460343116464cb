// config.json of a DeepSeek-V2 / V3 family checkpoint, normalised (reference/model.md sections 1,
// 2).
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

namespace ds {

enum class ModelClass { kV2, kV3 };  // DeepseekV2ForCausalLM, DeepseekV3ForCausalLM (kimi_k2 too)
enum class RouterScoring { kSigmoid, kSoftmax };
enum class RouterMethod { kGreedy, kGroupLimitedGreedy, kNoauxTc };

// YaRN settings; absent when the rope type is default.
struct YarnConfig {
  double factor = 1.0;
  std::int64_t original_max_position = 0;
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 0.0;          // 0 = not set
  double mscale_all_dim = 0.0;  // 0 = not set
  bool truncate = true;
  std::optional<double> attention_factor;
};

struct QuantizationConfig {
  std::string quant_method;  // "fp8"
  std::int64_t block_rows = 128;
  std::int64_t block_cols = 128;
  std::string scale_fmt;  // "" or "ue8m0"
};

struct ModelConfig {
  std::string model_type;
  std::string architecture;
  ModelClass model_class = ModelClass::kV3;

  std::int64_t vocab_size = 0;
  std::int64_t hidden_size = 0;
  std::int64_t intermediate_size = 0;
  std::int64_t moe_intermediate_size = 0;
  std::int64_t num_hidden_layers = 0;
  std::int64_t first_k_dense_replace = 0;
  std::int64_t num_attention_heads = 0;
  std::int64_t n_routed_experts = 0;
  std::int64_t n_shared_experts = 0;
  std::int64_t num_experts_per_tok = 0;
  std::int64_t n_group = 1;
  std::int64_t topk_group = 1;
  RouterScoring scoring = RouterScoring::kSigmoid;
  RouterMethod method = RouterMethod::kNoauxTc;
  bool norm_topk_prob = true;
  double routed_scaling_factor = 1.0;
  std::int64_t q_lora_rank = 0;  // 0 = none: q_proj instead of q_a_proj, q_b_proj
  std::int64_t kv_lora_rank = 0;
  std::int64_t qk_nope_head_dim = 0;
  std::int64_t qk_rope_head_dim = 0;
  std::int64_t v_head_dim = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000.0;
  std::optional<YarnConfig> yarn;
  bool rope_interleave = true;
  bool attention_bias = false;
  bool tie_word_embeddings = false;
  std::int64_t max_position_embeddings = 0;
  std::int64_t num_nextn_predict_layers = 0;
  std::int64_t bos_token_id = 0;  // -1: none
  std::vector<std::int64_t> eos_token_ids;
  std::optional<std::int64_t> pad_token_id;
  std::string dtype;  // torch_dtype or dtype as written, may be empty
  std::optional<QuantizationConfig> quantization;

  bool is_moe_layer(std::int64_t layer) const {
    return n_routed_experts > 0 && layer >= first_k_dense_replace;
  }
  std::int64_t q_head_dim() const { return qk_nope_head_dim + qk_rope_head_dim; }
};

// Reads and validates FOLDER/config.json. Throws Error(kBadInput) naming the key, or naming the
// architecture found when it is not of this family (Qwen/Llama distills, V3.2, V4, VL, Kimi-K2.5,
// anything else), with what is supported.
ModelConfig load_model_config(const std::filesystem::path& folder);
ModelConfig parse_model_config(const nlohmann::json& json, const std::string& where);

// Rotary tables of the config: inv_freq[r/2] as transformers computes them in f32, the factor that
// multiplies cos and sin, and the softmax scale (n + r)^-0.5 * m^2 (reference/model.md section 3).
struct RopeSettings {
  std::vector<float> inv_freq;
  double attention_factor = 1.0;
  double softmax_scale = 1.0;
};
RopeSettings rope_settings(const ModelConfig& config);

// Parameter counts by kind, from the config alone (no MTP). Kinds: embedding, head, attention, mlp
// (dense layers), shared_experts, experts, router, norms.
struct ParameterCounts {
  std::int64_t embedding = 0, head = 0, attention = 0, mlp = 0, shared_experts = 0, experts = 0,
               router = 0, norms = 0;
  std::int64_t total() const {
    return embedding + head + attention + mlp + shared_experts + experts + router + norms;
  }
};
ParameterCounts count_parameters(const ModelConfig& config);
// Parameters touched by one token, embedding and head included.
std::int64_t activated_parameters(const ModelConfig& config);

// Where a model name leads: a folder, or NAME in $DEEPSEEK_MODELS and the Hugging Face cache
// layout. The caller passes the environment's values (libcore reads none). Throws Error(kBadInput)
// listing every place looked at.
struct ModelSearchPaths {
  std::string deepseek_models;  // $DEEPSEEK_MODELS, may hold several folders separated by ':'
  std::string hf_hub_cache;     // $HF_HUB_CACHE
  std::string hf_home;          // $HF_HOME
  std::string home;             // $HOME
};
std::filesystem::path find_model(const std::string& name, const ModelSearchPaths& paths);

}  // namespace ds
