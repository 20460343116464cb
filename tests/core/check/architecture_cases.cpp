// config.json, and the tensors it demands.
#include "tests/core/check/checkpoint_cases.h"

namespace ds::test {

using nlohmann::json;
namespace fs = std::filesystem;

namespace {

// A config with the sizes of the published V3 and no tensors that fit it.
void published_v3(Model& m) {
  m.config.update({{"hidden_size", 7168},
                   {"num_hidden_layers", 61},
                   {"n_routed_experts", 256},
                   {"vocab_size", 129280},
                   {"n_group", 8},
                   {"topk_group", 4},
                   {"num_experts_per_tok", 8},
                   {"routed_scaling_factor", 1.0},
                   {"first_k_dense_replace", 3},
                   {"num_attention_heads", 128},
                   {"num_key_value_heads", 128}});
}

}  // namespace

const std::vector<Case>& architecture_cases() {
  static const std::vector<Case> kCases{
      {"config-missing",
       "config.json",
       {},
       [](const fs::path& f) { fs::remove(f / "config.json"); }},
      {"config-syntax", "config.json", {}, replace_file("config.json", "{\"a\":1,}")},
      {"config-syntax", "config.json", {}, replace_file("config.json", "[1]")},
      {"config-key", "topk_group", config("topk_group", 99), {}},
      {"config-key", "hidden_size", [](Model& m) { m.config.erase("hidden_size"); }, {}},
      {"config-key", "scoring_func", config("scoring_func", "softmax"), {}},
      {"distilled-model", "architectures", config("architectures", {"Qwen2ForCausalLM"}), {}},
      {"deepseek-v3.2", "architectures", config("architectures", {"DeepseekV32ForCausalLM"}), {}},
      {"deepseek-v3.2",
       "indexer",
       [](Model& m) {
         m.set("model.layers.1.self_attn.indexer.wk.weight", "BF16", {4, 64});
       },
       {}},
      {"deepseek-v4", "architectures", config("architectures", {"DeepseekV4ForCausalLM"}), {}},
      {"other-architecture", "architectures", config("architectures", {"KimiVLForCausalLM"}), {}},
      {"class-and-type", "architectures", config("model_type", "deepseek_v2"), {}},
      {"inference-config",
       "config.json",
       [](Model& m) {
         m.config = {{"dim", 64}, {"n_layers", 3}, {"vocab_size", 300}};
       },
       {}},
      {"missing-tensor", kQ, [](Model& m) { m.tensors.erase(kQ); }, {}},
      {"missing-tensor", "lm_head.weight", [](Model& m) { m.tensors.erase("lm_head.weight"); }, {}},
      {"missing-layer",
       "model.layers.1",
       [](Model& m) {
         std::erase_if(m.tensors,
                       [](const auto& item) { return item.first.starts_with("model.layers.1."); });
       },
       {}},
      {"missing-expert",
       "experts.3",
       [](Model& m) {
         std::erase_if(m.tensors, [](const auto& item) {
           return item.first.starts_with("model.layers.1.mlp.experts.3.");
         });
       },
       {}},
      {"unknown-tensor",
       "q_c_proj",
       [](Model& m) { m.rename(kQ, "model.layers.1.self_attn.q_c_proj.weight"); },
       {}},
      {"wrong-shape",
       kQ,
       [](Model& m) {
         m.set(kQ, "F8_E4M3", {95, 32});
       },
       {}},
      {"layer-beyond-config",
       "model.layers.9",
       [](Model& m) { m.set("model.layers.9.input_layernorm.weight", "BF16", {64}); },
       {}},
      {"expert-beyond-config",
       "experts.8",
       [](Model& m) {
         m.set("model.layers.1.mlp.experts.8.up_proj.weight", "F8_E4M3", {32, 64});
       },
       {}},
      {"mtp-absent",
       "num_nextn_predict_layers",
       [](Model& m) {
         std::erase_if(m.tensors,
                       [](const auto& item) { return item.first.starts_with("model.layers.3."); });
       },
       {}},
      {"mtp-undeclared", "num_nextn_predict_layers", config("num_nextn_predict_layers", 0), {}},
      {"mtp-incomplete",
       "shared_head.norm",
       [](Model& m) { m.tensors.erase("model.layers.3.shared_head.norm.weight"); },
       {}},
      {"fused-experts",
       "gate_up_proj",
       [](Model& m) {
         std::erase_if(m.tensors, [](const auto& item) {
           return item.first.starts_with("model.layers.1.mlp.experts.");
         });
         m.set("model.layers.1.mlp.experts.gate_up_proj", "BF16", {8, 64, 64});
         m.set("model.layers.1.mlp.experts.down_proj", "BF16", {8, 64, 32});
       },
       {}},
      {"wrong-prefix",
       "language_model",
       [](Model& m) {
         std::map<std::string, ModelTensor> renamed;
         for (const auto& [name, tensor] : m.tensors) renamed["language_model." + name] = tensor;
         m.tensors = renamed;
       },
       {}},
      {"ignorable-buffer",
       "inv_freq",
       [](Model& m) { m.set("model.layers.1.self_attn.rotary_emb.inv_freq", "F32", {4}); },
       {}},
      {"router-bias-dtype",
       "e_score_correction_bias",
       [](Model& m) { m.set("model.layers.1.mlp.gate.e_score_correction_bias", "BF16", {8}); },
       {}},
      {"unsupported-dtype",
       "model.norm.weight",
       [](Model& m) { m.set("model.norm.weight", "I32", {64}); },
       {}},
      {"dtype-key", "torch_dtype", config("torch_dtype", "float16"), {}},
      {"tied-head", "tie_word_embeddings", config("tie_word_embeddings", true), {}},
      {"adapter-in-checkpoint",
       "lora_A",
       [](Model& m) {
         m.set("model.layers.1.self_attn.o_proj.lora_A.weight", "F32", {4, 64});
       },
       {}},
      {"config-dimension", "vocab_size", config("vocab_size", 301), {}},
      {"config-dimension", "hidden_size", config("hidden_size", 65), {}},
      {"config-dimension", "q_lora_rank", config("q_lora_rank", 33), {}},
      {"config-dimension", "q_lora_rank", config("q_lora_rank", nullptr), {}},
      {"config-dimension", "kv_lora_rank", config("kv_lora_rank", 17), {}},
      {"config-dimension", "qk_rope_head_dim", config("qk_rope_head_dim", 10), {}},
      {"config-dimension", "qk_nope_head_dim", config("qk_nope_head_dim", 20), {}},
      {"config-dimension", "v_head_dim", config("v_head_dim", 8), {}},
      {"config-dimension", "intermediate_size", config("intermediate_size", 96), {}},
      {"config-dimension", "moe_intermediate_size", config("moe_intermediate_size", 16), {}},
      {"config-dimension", "n_routed_experts", config("n_routed_experts", 6), {}},
      {"config-dimension", "n_shared_experts", config("n_shared_experts", 2), {}},
      {"config-dimension", "first_k_dense_replace", config("first_k_dense_replace", 2), {}},
      {"config-dimension", "num_hidden_layers", config("num_hidden_layers", 2), {}},
      {"config-dimension",
       "num_attention_heads",
       [](Model& m) {
         m.config["num_attention_heads"] = 2;
         m.config["num_key_value_heads"] = 2;
       },
       {}},
      {"differs-from-published", "routed_scaling_factor", published_v3, {}},
      {"rope-factor", "factor", config("max_position_embeddings", 1000), {}},
      {"rope-twice",
       "rope_theta",
       [](Model& m) { m.config["rope_scaling"]["rope_theta"] = 50000; },
       {}},
      {"rope-twice",
       "beta_fast",
       [](Model& m) {
         m.config["rope_parameters"] = m.config["rope_scaling"];
         m.config["rope_parameters"]["beta_fast"] = 1;
       },
       {}},
      {"token-beyond-vocabulary", "eos_token_id", config("eos_token_id", 300), {}},
      {"token-beyond-vocabulary", "pad_token_id", config("pad_token_id", 128801), {}},
      {"misspelt-key",
       "rope_thetha",
       [](Model& m) {
         m.config["rope_thetha"] = m.config["rope_theta"];
         m.config.erase("rope_theta");
       },
       {}},
      {"default-used",
       "routed_scaling_factor",
       [](Model& m) { m.config.erase("routed_scaling_factor"); },
       {}},
      {"default-used", "torch_dtype", [](Model& m) { m.config.erase("torch_dtype"); }, {}},
      {"default-used", "norm_topk_prob", config("norm_topk_prob", nullptr), {}},
      {"default-used",
       "mscale_all_dim",
       [](Model& m) { m.config["rope_scaling"].erase("mscale_all_dim"); },
       {}},
      {"unusual-value", "rms_norm_eps", config("rms_norm_eps", 1e-2), {}},
      {"unusual-value", "norm_topk_prob", config("norm_topk_prob", false), {}},
      {"unusual-value", "eos_token_id", config("eos_token_id", 0), {}},
      {"rope-without-type",
       "rope_scaling.type",
       [](Model& m) { m.config["rope_scaling"].erase("type"); },
       {}},
      {"config-dimension", "attention_bias", config("attention_bias", true), {}},
      {"config-dimension", "n_routed_experts", config("n_routed_experts", nullptr), {}},
  };
  return kCases;
}

}  // namespace ds::test
