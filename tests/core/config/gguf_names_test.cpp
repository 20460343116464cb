// Names and settings of deepseek2 files: the published models, and the way back to config.json.
#include "libcore/config/gguf_names.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "tests/support/paths.h"

namespace ds::test {

namespace {

using nlohmann::json;

json v3_config() {
  return json::parse(R"({"architectures":["DeepseekV3ForCausalLM"],"model_type":"deepseek_v3",
    "bos_token_id":0,"eos_token_id":1,
    "vocab_size":129280,"hidden_size":7168,"intermediate_size":18432,"moe_intermediate_size":2048,
    "num_hidden_layers":61,"first_k_dense_replace":3,"num_attention_heads":128,
    "num_key_value_heads":128,"n_routed_experts":256,"n_shared_experts":1,"num_experts_per_tok":8,
    "n_group":8,"topk_group":4,"scoring_func":"sigmoid","topk_method":"noaux_tc",
    "norm_topk_prob":true,"routed_scaling_factor":2.5,"q_lora_rank":1536,"kv_lora_rank":512,
    "qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"rms_norm_eps":1e-6,
    "rope_theta":10000,"max_position_embeddings":163840,"num_nextn_predict_layers":1,
    "rope_scaling":{"beta_fast":32,"beta_slow":1,"factor":40,"mscale":1.0,"mscale_all_dim":1.0,
                    "original_max_position_embeddings":4096,"type":"yarn"}})");
}
json v2_lite_config() {
  return json::parse(R"({"architectures":["DeepseekV2ForCausalLM"],"model_type":"deepseek_v2",
    "bos_token_id":100000,"eos_token_id":100001,
    "vocab_size":102400,"hidden_size":2048,"intermediate_size":10944,"moe_intermediate_size":1408,
    "num_hidden_layers":27,"first_k_dense_replace":1,"num_attention_heads":16,
    "num_key_value_heads":16,"n_routed_experts":64,"n_shared_experts":2,"num_experts_per_tok":6,
    "n_group":1,"topk_group":1,"scoring_func":"softmax","topk_method":"greedy",
    "norm_topk_prob":false,"routed_scaling_factor":1.0,"q_lora_rank":null,"kv_lora_rank":512,
    "qk_nope_head_dim":128,"qk_rope_head_dim":64,"v_head_dim":128,"rms_norm_eps":1e-6,
    "rope_theta":10000,"max_position_embeddings":163840,
    "rope_scaling":{"beta_fast":32,"beta_slow":1,"factor":40,"mscale":0.707,
                    "mscale_all_dim":0.707,"original_max_position_embeddings":4096,"type":"yarn"}})");
}
ModelConfig parsed(const json& config) { return parse_model_config(config, "config.json"); }

std::map<std::string, GgufSetting> settings_of(const ModelConfig& config, GgufMla mla) {
  std::map<std::string, GgufSetting> map{{"general.architecture", std::string("deepseek2")}};
  for (const GgufMetadata& entry : gguf_metadata(config, mla)) {
    // A file holds f32.
    const auto* number = std::get_if<double>(&entry.value);
    map[entry.key] = number == nullptr
                         ? entry.value
                         : GgufSetting(static_cast<double>(static_cast<float>(*number)));
  }
  map["tokenizer.ggml.bos_token_id"] = config.bos_token_id;
  map["tokenizer.ggml.eos_token_id"] = config.eos_token_ids.front();
  return map;
}

class MapSettings final : public GgufSettings {
 public:
  explicit MapSettings(std::map<std::string, GgufSetting> map) : map_(std::move(map)) {}
  std::optional<GgufSetting> find(const std::string& key) const override {
    const auto at = map_.find(key);
    return at == map_.end() ? std::nullopt : std::optional(at->second);
  }

 private:
  std::map<std::string, GgufSetting> map_;
};

GgufFacts facts_of(const ModelConfig& config, GgufMla mla) {
  return {mla, config.tie_word_embeddings, config.method == RouterMethod::kNoauxTc,
          config.vocab_size, config.kv_lora_rank};
}

std::string refusal(const std::map<std::string, GgufSetting>& map, const GgufFacts& facts) {
  std::vector<std::string> guesses;
  try {
    config_from_gguf(MapSettings(map), facts, "f.gguf", guesses);
  } catch (const Error& error) {
    return error.code() == ExitCode::kBadInput ? error.what() : "wrong code";
  }
  return "no error";
}

}  // namespace

TEST_CASE("gguf names: V3 has 1,086 tensors, 361 of them F32; 1,025 in the old layout") {
  const ModelConfig config = parsed(v3_config());
  const auto split = gguf_tensor_plan(config, GgufMla::kSplit);
  CHECK(split.size() == 1086);
  CHECK(std::count_if(split.begin(), split.end(), [](const auto& t) { return t.always_f32; }) ==
        361);
  CHECK(gguf_tensor_plan(config, GgufMla::kUnsplit).size() == 1025);

  std::map<std::string, const GgufTensorPlan*> by_name;
  for (const auto& tensor : split) by_name[tensor.name] = &tensor;
  REQUIRE(by_name.size() == split.size());
  const auto shape = [&](const char* name) { return by_name.at(name)->shape; };
  using Shape = std::vector<std::int64_t>;
  CHECK(shape("blk.60.attn_k_b.weight") == Shape{128, 512, 128});
  CHECK(shape("blk.60.attn_v_b.weight") == Shape{128, 128, 512});
  CHECK(shape("blk.60.ffn_down_exps.weight") == Shape{256, 7168, 2048});
  CHECK(shape("blk.0.ffn_gate.weight") == Shape{18432, 7168});
  CHECK(by_name.at("blk.3.exp_probs_b.bias")->source_name(0) ==
        "model.layers.3.mlp.gate.e_score_correction_bias");
  CHECK(by_name.at("blk.3.ffn_up_exps.weight")->source_name(255) ==
        "model.layers.3.mlp.experts.255.up_proj.weight");
  CHECK(by_name.count("blk.61.attn_norm.weight") == 0);  // MTP
  CHECK(by_name.count("blk.2.ffn_gate_inp.weight") == 0);
  CHECK(split.front().name == "token_embd.weight");
  CHECK(split.back().name == "output.weight");
}

TEST_CASE("gguf names: the keys of V3 and of V2-Lite") {
  const auto v3 = settings_of(parsed(v3_config()), GgufMla::kSplit);
  const auto integer = [](const auto& map, const char* key) {
    return std::get<std::int64_t>(map.at(std::string("deepseek2.") + key));
  };
  const auto number = [](const auto& map, const char* key) {
    return static_cast<float>(std::get<double>(map.at(std::string("deepseek2.") + key)));
  };
  CHECK(integer(v3, "block_count") == 61);
  CHECK(integer(v3, "attention.head_count") == 128);
  CHECK(integer(v3, "attention.head_count_kv") == 1);
  CHECK(integer(v3, "attention.key_length") == 576);
  CHECK(integer(v3, "attention.value_length") == 512);
  CHECK(integer(v3, "attention.key_length_mla") == 192);
  CHECK(integer(v3, "attention.value_length_mla") == 128);
  CHECK(integer(v3, "expert_gating_func") == 2);
  CHECK(integer(v3, "expert_group_count") == 8);
  CHECK(integer(v3, "expert_group_used_count") == 4);
  CHECK(std::get<bool>(v3.at("deepseek2.expert_weights_norm")));
  CHECK(number(v3, "rope.scaling.yarn_log_multiplier") == 0.1F);
  CHECK(number(v3, "expert_weights_scale") == 2.5F);

  const auto legacy = settings_of(parsed(v3_config()), GgufMla::kUnsplit);
  CHECK(integer(legacy, "attention.head_count_kv") == 128);
  CHECK(integer(legacy, "attention.key_length") == 192);
  CHECK(integer(legacy, "attention.value_length") == 128);
  CHECK(legacy.count("deepseek2.attention.key_length_mla") == 0);

  const auto lite = settings_of(parsed(v2_lite_config()), GgufMla::kSplit);
  CHECK(number(lite, "rope.scaling.yarn_log_multiplier") == 0.0707F);
  CHECK(integer(lite, "expert_gating_func") == 1);
  CHECK(lite.count("deepseek2.attention.q_lora_rank") == 0);
  CHECK(lite.count("deepseek2.expert_weights_norm") == 0);
  CHECK(integer(lite, "expert_shared_count") == 2);
}

TEST_CASE("gguf names: config.json comes back from the keys") {
  for (const json& original : {v3_config(), v2_lite_config()}) {
    for (const GgufMla mla : {GgufMla::kSplit, GgufMla::kUnsplit}) {
      const ModelConfig config = parsed(original);
      std::vector<std::string> guesses;
      const json back = json(config_from_gguf(MapSettings(settings_of(config, mla)),
                                              facts_of(config, mla), "f.gguf", guesses));
      for (const auto& [key, value] : original.items()) {
        if (key == "num_nextn_predict_layers") continue;  // MTP is not in the file
        CHECK_MESSAGE(back.value(key, json()) == value, key);
      }
      CHECK(parsed(back).yarn->mscale == config.yarn->mscale);
    }
  }
}

TEST_CASE("gguf names: files from before the newer keys, guessed and said") {
  const ModelConfig config = parsed(v3_config());
  auto map = settings_of(config, GgufMla::kUnsplit);
  for (const char* key : {"expert_group_count", "expert_group_used_count", "vocab_size",
                          "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"}) {
    REQUIRE(map.erase(std::string("deepseek2.") + key) == 1);
  }
  std::vector<std::string> guesses;
  const json back = json(
      config_from_gguf(MapSettings(map), facts_of(config, GgufMla::kUnsplit), "f.gguf", guesses));
  CHECK(back["n_group"] == 8);
  CHECK(back["topk_group"] == 4);
  CHECK(back["vocab_size"] == 129280);
  CHECK(std::any_of(guesses.begin(), guesses.end(), [](const std::string& guess) {
    return guess.find("n_group 8 and topk_group 4") != std::string::npos;
  }));
}

TEST_CASE("gguf names: what contradicts itself is refused by key") {
  const ModelConfig config = parsed(v3_config());
  const GgufMla mla = GgufMla::kSplit;
  const auto with = [&](const char* key, std::optional<GgufSetting> value) {
    auto map = settings_of(config, mla);
    if (value) {
      map[key] = *value;
    } else {
      map.erase(key);
    }
    return refusal(map, facts_of(config, mla));
  };
  const auto has = [](const std::string& text, const char* part) {
    return text.find(part) != std::string::npos;
  };
  CHECK(with("other", std::int64_t{1}) == "no error");
  CHECK(has(with("general.architecture", std::string("llama")), "'llama', only deepseek2"));
  CHECK(has(with("general.type", std::string("adapter")), "'adapter', a model is needed"));
  CHECK(has(with("deepseek2.block_count", std::nullopt), "key deepseek2.block_count is missing"));
  CHECK(has(with("deepseek2.block_count", std::int64_t{-1}), "is -1"));
  CHECK(has(with("deepseek2.block_count", 2.5), "is no integer"));
  CHECK(has(with("deepseek2.vocab_size", std::int64_t{7}), "token_embd.weight has 129280 rows"));
  CHECK(has(with("deepseek2.attention.kv_lora_rank", std::int64_t{7}), "attn_kv_a_norm has 512"));
  CHECK(has(with("deepseek2.attention.key_length_mla", std::int64_t{64}), "more than the 64"));
  CHECK(has(with("deepseek2.expert_gating_func", std::int64_t{3}), "1 (softmax) or 2 (sigmoid)"));
  CHECK(has(with("deepseek2.expert_gating_func", std::int64_t{1}), "router is softmax"));
  CHECK(has(with("deepseek2.rope.scaling.type", std::string("linear")), "needed is yarn or none"));
}

TEST_CASE("gguf names: what deepseek2 has no place for is refused") {
  json config = v3_config();
  config["attention_bias"] = true;
  CHECK_THROWS_AS(gguf_tensor_plan(parsed(config), GgufMla::kSplit), Error);
  config = v3_config();
  config["rope_interleave"] = false;
  CHECK_THROWS_AS(gguf_tensor_plan(parsed(config), GgufMla::kSplit), Error);
  config = v3_config();
  config["tie_word_embeddings"] = true;
  CHECK(gguf_tensor_plan(parsed(config), GgufMla::kSplit).size() == 1085);
}

}  // namespace ds::test
