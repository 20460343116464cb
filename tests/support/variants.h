// config.json of the five published variants (reference/model.md section 1), as on the hub.
#pragma once

#include <nlohmann/json.hpp>

namespace ds::test {

inline nlohmann::json variant_base(const char* architecture, const char* type) {
  return {{"architectures", {architecture}},
          {"model_type", type},
          {"attention_bias", false},
          {"attention_dropout", 0.0},
          {"hidden_act", "silu"},
          {"initializer_range", 0.02},
          {"kv_lora_rank", 512},
          {"moe_layer_freq", 1},
          {"qk_nope_head_dim", 128},
          {"qk_rope_head_dim", 64},
          {"v_head_dim", 128},
          {"rms_norm_eps", 1e-6},
          {"rope_theta", 10000},
          {"tie_word_embeddings", false},
          {"torch_dtype", "bfloat16"},
          {"use_cache", true}};
}
inline nlohmann::json yarn_json(double factor, double fast, double slow, double mscale) {
  return {
      {"type", "yarn"},          {"factor", factor},  {"original_max_position_embeddings", 4096},
      {"beta_fast", fast},       {"beta_slow", slow}, {"mscale", mscale},
      {"mscale_all_dim", mscale}};
}
inline nlohmann::json fp8_json() {
  return {{"activation_scheme", "dynamic"},
          {"fmt", "e4m3"},
          {"quant_method", "fp8"},
          {"weight_block_size", {128, 128}}};
}
inline nlohmann::json v2_json() {
  nlohmann::json c = variant_base("DeepseekV2ForCausalLM", "deepseek_v2");
  c.update({{"vocab_size", 102400},
            {"hidden_size", 5120},
            {"intermediate_size", 12288},
            {"moe_intermediate_size", 1536},
            {"num_hidden_layers", 60},
            {"first_k_dense_replace", 1},
            {"num_attention_heads", 128},
            {"num_key_value_heads", 128},
            {"q_lora_rank", 1536},
            {"n_routed_experts", 160},
            {"n_shared_experts", 2},
            {"num_experts_per_tok", 6},
            {"n_group", 8},
            {"topk_group", 3},
            {"scoring_func", "softmax"},
            {"topk_method", "group_limited_greedy"},
            {"norm_topk_prob", false},
            {"routed_scaling_factor", 16.0},
            {"max_position_embeddings", 163840},
            {"bos_token_id", 100000},
            {"eos_token_id", 100001}});
  c["rope_scaling"] = yarn_json(40, 32, 1, 0.707);
  return c;
}
inline nlohmann::json v2_lite_json() {
  nlohmann::json c = v2_json();
  c.update({{"hidden_size", 2048},
            {"intermediate_size", 10944},
            {"moe_intermediate_size", 1408},
            {"num_hidden_layers", 27},
            {"num_attention_heads", 16},
            {"num_key_value_heads", 16},
            {"q_lora_rank", nullptr},
            {"n_routed_experts", 64},
            {"n_group", 1},
            {"topk_group", 1},
            {"topk_method", "greedy"},
            {"routed_scaling_factor", 1.0}});
  return c;
}
inline nlohmann::json v3_json() {
  nlohmann::json c = variant_base("DeepseekV3ForCausalLM", "deepseek_v3");
  c.update({{"vocab_size", 129280},
            {"hidden_size", 7168},
            {"intermediate_size", 18432},
            {"moe_intermediate_size", 2048},
            {"num_hidden_layers", 61},
            {"first_k_dense_replace", 3},
            {"num_attention_heads", 128},
            {"num_key_value_heads", 128},
            {"q_lora_rank", 1536},
            {"n_routed_experts", 256},
            {"n_shared_experts", 1},
            {"num_experts_per_tok", 8},
            {"n_group", 8},
            {"topk_group", 4},
            {"scoring_func", "sigmoid"},
            {"topk_method", "noaux_tc"},
            {"norm_topk_prob", true},
            {"routed_scaling_factor", 2.5},
            {"max_position_embeddings", 163840},
            {"num_nextn_predict_layers", 1},
            {"bos_token_id", 0},
            {"eos_token_id", 1}});
  c["rope_scaling"] = yarn_json(40, 32, 1, 1.0);
  c["quantization_config"] = fp8_json();
  return c;
}
inline nlohmann::json moonlight_json() {
  nlohmann::json c = v3_json();
  c.update({{"vocab_size", 163840},
            {"hidden_size", 2048},
            {"intermediate_size", 11264},
            {"moe_intermediate_size", 1408},
            {"num_hidden_layers", 27},
            {"first_k_dense_replace", 1},
            {"num_attention_heads", 16},
            {"num_key_value_heads", 16},
            {"q_lora_rank", nullptr},
            {"n_routed_experts", 64},
            {"n_shared_experts", 2},
            {"num_experts_per_tok", 6},
            {"n_group", 1},
            {"topk_group", 1},
            {"routed_scaling_factor", 2.446},
            {"rms_norm_eps", 1e-5},
            {"rope_theta", 50000.0},
            {"max_position_embeddings", 8192},
            {"num_nextn_predict_layers", 0},
            {"bos_token_id", 163584},
            {"eos_token_id", 163585}});
  c.erase("rope_scaling");
  c.erase("quantization_config");
  return c;
}
inline nlohmann::json kimi_k2_json() {
  nlohmann::json c = v3_json();
  c.update({{"model_type", "kimi_k2"},
            {"vocab_size", 163840},
            {"first_k_dense_replace", 1},
            {"num_attention_heads", 64},
            {"num_key_value_heads", 64},
            {"n_routed_experts", 384},
            {"n_group", 1},
            {"topk_group", 1},
            {"routed_scaling_factor", 2.827},
            {"rope_theta", 50000.0},
            {"max_position_embeddings", 131072},
            {"num_nextn_predict_layers", 0},
            {"bos_token_id", 163584},
            {"eos_token_id", 163585}});
  c["rope_scaling"] = yarn_json(32, 1, 1, 1.0);
  return c;
}

// The small V3 shape of the goldens' tiny-v3: 4 layers of which 1 dense, 8 experts in 2 groups.
inline nlohmann::json tiny_v3_json() {
  nlohmann::json c = v3_json();
  c.update({{"vocab_size", 512},
            {"hidden_size", 64},
            {"intermediate_size", 128},
            {"moe_intermediate_size", 32},
            {"num_hidden_layers", 4},
            {"first_k_dense_replace", 1},
            {"num_attention_heads", 4},
            {"num_key_value_heads", 4},
            {"q_lora_rank", 32},
            {"kv_lora_rank", 16},
            {"qk_nope_head_dim", 16},
            {"qk_rope_head_dim", 8},
            {"v_head_dim", 16},
            {"n_routed_experts", 8},
            {"num_experts_per_tok", 2},
            {"n_group", 2},
            {"topk_group", 1},
            {"max_position_embeddings", 1280}});
  c["rope_scaling"] = yarn_json(40, 32, 1, 1.0);
  c["rope_scaling"]["original_max_position_embeddings"] = 32;
  c.erase("quantization_config");
  return c;
}

}  // namespace ds::test
