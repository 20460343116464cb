#include <fmt/format.h>

#include <charconv>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/config/gguf_names.h"

namespace ds {

namespace {

constexpr std::int64_t kLargest = std::int64_t{1} << 40;

// The decimal a person would have written for what is stored as f32.
double as_written(double value) {
  const std::string text = fmt::format("{}", static_cast<float>(value));
  double out = value;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}
// The same for a quotient of such a number: 7 digits are what an f32 holds.
double rounded(double value) {
  const std::string text = fmt::format("{:.6g}", value);
  double out = value;
  std::from_chars(text.data(), text.data() + text.size(), out);
  return out;
}

class Reader {
 public:
  Reader(const GgufSettings& settings, const std::string& where)
      : settings_(settings), where_(where) {}

  [[noreturn]] void bad(const std::string& what, const std::string& hint = "") const {
    throw Error(ExitCode::kBadInput, where_ + ": " + what, hint);
  }
  std::optional<std::int64_t> maybe_integer(const std::string& key, std::int64_t low) const {
    const auto value = settings_.find(key);
    if (!value) return std::nullopt;
    const auto* integer = std::get_if<std::int64_t>(&*value);
    if (integer == nullptr) bad("key " + key + " is no integer, which is needed");
    if (*integer < low || *integer > kLargest) {
      bad(fmt::format("key {} is {}, needed is {} to 2^40", key, *integer, low));
    }
    return *integer;
  }
  std::int64_t integer(const std::string& key, std::int64_t low) const {
    const auto value = maybe_integer(key, low);
    if (!value) {
      bad("key " + key + " is missing", "the file is no whole deepseek2 model");
    }
    return *value;
  }
  std::optional<double> maybe_number(const std::string& key) const {
    const auto value = settings_.find(key);
    if (!value) return std::nullopt;
    double number = 0.0;
    if (const auto* real = std::get_if<double>(&*value)) {
      number = as_written(*real);
    } else if (const auto* integer = std::get_if<std::int64_t>(&*value)) {
      number = static_cast<double>(*integer);
    } else {
      bad("key " + key + " is no number, which is needed");
    }
    if (!std::isfinite(number)) bad("key " + key + " is no finite number");
    return number;
  }
  bool boolean(const std::string& key, bool fallback) const {
    const auto value = settings_.find(key);
    if (!value) return fallback;
    const auto* flag = std::get_if<bool>(&*value);
    if (flag == nullptr) bad("key " + key + " is no bool, which is needed");
    return *flag;
  }
  std::string text(const std::string& key) const {
    const auto value = settings_.find(key);
    if (!value) return "";
    const auto* words = std::get_if<std::string>(&*value);
    if (words == nullptr) bad("key " + key + " is no string, which is needed");
    return *words;
  }

 private:
  const GgufSettings& settings_;
  const std::string& where_;
};

std::string key(const char* name) { return std::string("deepseek2.") + name; }

}  // namespace

nlohmann::ordered_json config_from_gguf(const GgufSettings& settings, const GgufFacts& facts,
                                        const std::string& where,
                                        std::vector<std::string>& guesses) {
  const Reader in(settings, where);
  const std::string architecture = in.text("general.architecture");
  if (architecture != "deepseek2") {
    in.bad("general.architecture is '" + architecture + "', only deepseek2 is supported");
  }
  const std::string type = in.text("general.type");
  if (!type.empty() && type != "model") {
    in.bad("general.type is '" + type + "', a model is needed");
  }
  const bool split = facts.mla == GgufMla::kSplit;
  const std::int64_t gating = in.maybe_integer(key("expert_gating_func"), 0).value_or(1);
  if (gating != 1 && gating != 2) {
    in.bad(fmt::format("key {} is {}, needed is 1 (softmax) or 2 (sigmoid)",
                       key("expert_gating_func"), gating));
  }
  const bool v3 = gating == 2;
  const std::int64_t experts = in.maybe_integer(key("expert_count"), 0).value_or(0);
  if (experts > 0 && v3 != facts.selection_bias) {
    in.bad(v3 ? "the router is sigmoid (expert_gating_func 2) and there is no exp_probs_b.bias"
              : "the router is softmax (expert_gating_func 1 or absent) and there is an "
                "exp_probs_b.bias",
           "no model of this family has such a router");
  }
  const std::int64_t layers = in.integer(key("block_count"), 1);
  const std::int64_t heads = in.integer(key("attention.head_count"), 1);
  const std::int64_t rope = in.integer(key("rope.dimension_count"), 2);
  const std::int64_t rank = in.integer(key("attention.kv_lora_rank"), 1);
  if (rank != facts.kv_lora_rank) {
    in.bad(fmt::format("key {} is {}, attn_kv_a_norm has {} values", key("attention.kv_lora_rank"),
                       rank, facts.kv_lora_rank));
  }
  const std::string length = key(split ? "attention.key_length_mla" : "attention.key_length");
  const std::int64_t head = in.integer(length, 1);
  if (head <= rope) {
    in.bad(fmt::format("key {} is {}, needed is more than the {} of {}", length, head, rope,
                       key("rope.dimension_count")));
  }
  const std::int64_t value =
      in.integer(key(split ? "attention.value_length_mla" : "attention.value_length"), 1);
  const std::int64_t vocabulary =
      in.maybe_integer(key("vocab_size"), 1).value_or(facts.vocabulary_rows);
  if (vocabulary != facts.vocabulary_rows) {
    in.bad(fmt::format("key {} is {}, token_embd.weight has {} rows", key("vocab_size"), vocabulary,
                       facts.vocabulary_rows));
  }

  std::int64_t groups = in.maybe_integer(key("expert_group_count"), 0).value_or(0);
  std::int64_t used = in.maybe_integer(key("expert_group_used_count"), 0).value_or(0);
  if (experts > 0 && (groups == 0 || used == 0)) {
    // Files made before llama.cpp knew of groups do not say.
    groups = (v3 && experts == 256) || (!v3 && experts == 160) ? 8 : 1;
    used = groups == 1 ? 1 : (v3 ? 4 : 3);
    guesses.push_back(fmt::format(
        "n_group {} and topk_group {}: the file has no {}; these are the published model's with {} "
        "experts",
        groups, used, key("expert_group_count"), experts));
  }

  nlohmann::ordered_json config;
  config["architectures"] = {v3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM"};
  config["attention_bias"] = false;
  config["attention_dropout"] = 0.0;
  const auto token = [&](const char* name, const char* from) {
    if (const auto id = in.maybe_integer(from, 0)) {
      config[name] = *id;
    } else {
      config[name] = nullptr;
      guesses.push_back(fmt::format("{} null: the file has no {}", name, from));
    }
  };
  token("bos_token_id", "tokenizer.ggml.bos_token_id");
  token("eos_token_id", "tokenizer.ggml.eos_token_id");
  config["first_k_dense_replace"] =
      in.maybe_integer(key("leading_dense_block_count"), 0).value_or(0);
  config["hidden_act"] = "silu";
  config["hidden_size"] = in.integer(key("embedding_length"), 1);
  config["intermediate_size"] = in.integer(key("feed_forward_length"), 1);
  config["kv_lora_rank"] = rank;
  config["max_position_embeddings"] = in.integer(key("context_length"), 1);
  config["model_type"] = v3 ? "deepseek_v3" : "deepseek_v2";
  if (experts > 0) {
    config["moe_intermediate_size"] = in.integer(key("expert_feed_forward_length"), 1);
    config["moe_layer_freq"] = 1;
    config["n_group"] = groups;
    config["n_routed_experts"] = experts;
    config["n_shared_experts"] = in.maybe_integer(key("expert_shared_count"), 0).value_or(0);
    config["norm_topk_prob"] = in.boolean(key("expert_weights_norm"), false);
  } else {
    config["n_routed_experts"] = nullptr;
    config["n_shared_experts"] = nullptr;
  }
  config["num_attention_heads"] = heads;
  if (experts > 0) config["num_experts_per_tok"] = in.integer(key("expert_used_count"), 1);
  config["num_hidden_layers"] = layers;
  config["num_key_value_heads"] = heads;
  if (v3) config["num_nextn_predict_layers"] = 0;
  const auto q_rank = in.maybe_integer(key("attention.q_lora_rank"), 0);
  if (q_rank && *q_rank > 0) {
    config["q_lora_rank"] = *q_rank;
  } else {
    config["q_lora_rank"] = nullptr;
  }
  config["qk_nope_head_dim"] = head - rope;
  config["qk_rope_head_dim"] = rope;
  const auto eps = in.maybe_number(key("attention.layer_norm_rms_epsilon"));
  if (!eps) in.bad("key " + key("attention.layer_norm_rms_epsilon") + " is missing");
  config["rms_norm_eps"] = *eps;

  const std::string scaling = in.text(key("rope.scaling.type"));
  if (scaling == "yarn") {
    nlohmann::ordered_json yarn;
    yarn["beta_fast"] = in.maybe_number(key("rope.scaling.yarn_beta_fast")).value_or(32.0);
    yarn["beta_slow"] = in.maybe_number(key("rope.scaling.yarn_beta_slow")).value_or(1.0);
    const auto factor = in.maybe_number(key("rope.scaling.factor"));
    if (!factor) in.bad("key " + key("rope.scaling.factor") + " is missing");
    yarn["factor"] = *factor;
    if (const auto multiplier = in.maybe_number(key("rope.scaling.yarn_log_multiplier"))) {
      const double mscale = rounded(*multiplier * 10.0);
      yarn["mscale"] = mscale;
      yarn["mscale_all_dim"] = mscale;
      guesses.push_back(fmt::format(
          "mscale {}: the file holds mscale_all_dim only; every published model has both alike",
          mscale));
    }
    if (const auto factor_of = in.maybe_number(key("rope.scaling.yarn_attn_factor"))) {
      yarn["attention_factor"] = *factor_of;
    }
    yarn["original_max_position_embeddings"] =
        in.integer(key("rope.scaling.original_context_length"), 1);
    yarn["type"] = "yarn";
    config["rope_scaling"] = yarn;
  } else if (scaling.empty() || scaling == "none") {
    config["rope_scaling"] = nullptr;
  } else {
    in.bad("key " + key("rope.scaling.type") + " is '" + scaling + "', needed is yarn or none");
  }
  config["rope_theta"] = in.maybe_number(key("rope.freq_base")).value_or(10000.0);
  if (experts > 0) {
    config["routed_scaling_factor"] = in.maybe_number(key("expert_weights_scale")).value_or(1.0);
    config["scoring_func"] = v3 ? "sigmoid" : "softmax";
  }
  config["tie_word_embeddings"] = facts.tied;
  if (experts > 0) {
    config["topk_group"] = used;
    config["topk_method"] = v3 ? "noaux_tc" : groups > 1 ? "group_limited_greedy" : "greedy";
  }
  config["use_cache"] = true;
  config["v_head_dim"] = value;
  config["vocab_size"] = vocabulary;
  return config;
}

}  // namespace ds
