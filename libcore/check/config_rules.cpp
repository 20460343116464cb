#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <set>
#include <string_view>

#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/check/checks.h"
#include "libcore/check/published.h"

namespace ds::check {
namespace {

using nlohmann::json;

std::string shown(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 120);
}

// Keys that configs of this family carry, whoever wrote them.
const std::vector<std::string>& known_keys() {
  static const std::vector<std::string> kKeys{"architectures",
                                              "attention_bias",
                                              "attention_dropout",
                                              "attn_implementation",
                                              "auto_map",
                                              "aux_loss_alpha",
                                              "bos_token_id",
                                              "chunk_size_feed_forward",
                                              "dtype",
                                              "eos_token_id",
                                              "ep_size",
                                              "first_k_dense_replace",
                                              "head_dim",
                                              "hidden_act",
                                              "hidden_size",
                                              "id2label",
                                              "initializer_range",
                                              "intermediate_size",
                                              "is_encoder_decoder",
                                              "kv_lora_rank",
                                              "label2id",
                                              "layer_types",
                                              "max_position_embeddings",
                                              "mlp_bias",
                                              "model_type",
                                              "moe_intermediate_size",
                                              "moe_layer_freq",
                                              "n_group",
                                              "n_routed_experts",
                                              "n_shared_experts",
                                              "norm_topk_prob",
                                              "num_attention_heads",
                                              "num_experts_per_tok",
                                              "num_hidden_layers",
                                              "num_key_value_heads",
                                              "num_local_experts",
                                              "num_mtp_layers",
                                              "num_nextn_predict_layers",
                                              "output_attentions",
                                              "output_hidden_states",
                                              "output_router_logits",
                                              "pad_token_id",
                                              "pretraining_tp",
                                              "q_lora_rank",
                                              "qk_head_dim",
                                              "qk_nope_head_dim",
                                              "qk_rope_head_dim",
                                              "quantization_config",
                                              "return_dict",
                                              "rms_norm_eps",
                                              "rope_interleave",
                                              "rope_parameters",
                                              "rope_scaling",
                                              "rope_theta",
                                              "routed_scaling_factor",
                                              "router_aux_loss_coef",
                                              "scoring_func",
                                              "seq_aux",
                                              "sliding_window",
                                              "tie_word_embeddings",
                                              "topk_group",
                                              "topk_method",
                                              "torch_dtype",
                                              "transformers_version",
                                              "unsloth_version",
                                              "use_cache",
                                              "v_head_dim",
                                              "vocab_size"};
  return kKeys;
}

class ConfigCheck {
 public:
  ConfigCheck(const json& value, const ModelConfig& config, const std::string& file,
              Findings& findings)
      : json_(value), config_(config), file_(file), findings_(findings) {}

  void run() {
    rope();
    rope_block();
    unusual();
    tokens();
    spelling();
    defaults();
    published();
  }

 private:
  void add(const char* rule, const std::string& key, const std::string& what,
           const std::string& found, const std::string& expected) {
    findings_.add(rule, {.file = file_,
                         .key = key,
                         .message = fmt::format("{}: {}", file_, what),
                         .found = found,
                         .expected = expected});
  }

  void rope() {
    if (config_.yarn) {
      const double length =
          config_.yarn->factor * static_cast<double>(config_.yarn->original_max_position);
      const auto most = static_cast<double>(config_.max_position_embeddings);
      if (std::fabs(length - most) > 0.5) {
        add("rope-factor", "rope_scaling.factor",
            fmt::format("the YaRN factor {:g} times the original length {} is {:g}, but "
                        "max_position_embeddings is {}",
                        config_.yarn->factor, config_.yarn->original_max_position, length,
                        config_.max_position_embeddings),
            fmt::format("{:g}", config_.yarn->factor),
            fmt::format("{:g}", most / static_cast<double>(config_.yarn->original_max_position)));
      }
    }
    const auto block = [&](const char* key) {
      return json_.contains(key) && json_.at(key).is_object() ? json_.at(key) : json();
    };
    const json old_form = block("rope_scaling");
    const json new_form = block("rope_parameters");
    if (old_form.is_object() && new_form.is_object()) {
      for (const char* key : {"factor", "original_max_position_embeddings", "beta_fast",
                              "beta_slow", "mscale", "mscale_all_dim"}) {
        if (!old_form.contains(key) || !new_form.contains(key) ||
            old_form.at(key) == new_form.at(key)) {
          continue;
        }
        add("rope-twice", fmt::format("rope_parameters.{}", key),
            fmt::format("rope_scaling.{0} is {1}, rope_parameters.{0} is {2}", key,
                        shown(old_form.at(key)), shown(new_form.at(key))),
            shown(new_form.at(key)), shown(old_form.at(key)));
      }
    }
    for (const auto& [name, form] : {std::pair<const char*, const json&>{"rope_scaling", old_form},
                                     {"rope_parameters", new_form}}) {
      if (!form.is_object() || !form.contains("rope_theta") || !json_.contains("rope_theta") ||
          form.at("rope_theta") == json_.at("rope_theta")) {
        continue;
      }
      add("rope-twice", fmt::format("{}.rope_theta", name),
          fmt::format("rope_theta is {}, {}.rope_theta is {}", shown(json_.at("rope_theta")), name,
                      shown(form.at("rope_theta"))),
          shown(form.at("rope_theta")), shown(json_.at("rope_theta")));
    }
  }

  // Settings of YaRN without its name are not read at all; settings that are left out are made up.
  void rope_block() {
    const bool old_form = json_.contains("rope_scaling") && !json_.at("rope_scaling").is_null();
    const std::string name = old_form ? "rope_scaling" : "rope_parameters";
    if (!json_.contains(name) || !json_.at(name).is_object()) return;
    const json& block = json_.at(name);
    const auto given = [&](const char* key) {
      return block.contains(key) && !block.at(key).is_null();
    };
    if (!given("type") && !given("rope_type") && (old_form || given("factor"))) {
      add("rope-without-type", name + ".type",
          fmt::format("{} has no type, so its settings are not used", name), "absent", "yarn");
    }
    if (!config_.yarn) return;
    for (const char* key : {"factor", "original_max_position_embeddings", "beta_fast", "beta_slow",
                            "mscale", "mscale_all_dim"}) {
      if (given(key)) continue;
      add("default-used", name + "." + key, fmt::format("the key \"{}.{}\" is absent", name, key),
          "absent", "");
    }
  }

  // Far from what any model of the family has.
  void unusual() {
    const auto range = [&](const char* key, double value, double low, double high) {
      if (value >= low && value <= high) return;
      add("unusual-value", key,
          fmt::format("{} is {:g}, models of this family have {:g} to {:g}", key, value, low, high),
          fmt::format("{:g}", value), fmt::format("{:g} to {:g}", low, high));
    };
    range("rms_norm_eps", config_.rms_norm_eps, 1e-8, 1e-3);
    range("rope_theta", config_.rope_theta, 1e3, 1e9);
    if (config_.n_routed_experts > 0) {
      range("routed_scaling_factor", config_.routed_scaling_factor, 0.1, 100.0);
      if (config_.model_class == ModelClass::kV3 && !config_.norm_topk_prob) {
        add("unusual-value", "norm_topk_prob",
            "norm_topk_prob is false, models with a sigmoid router have true", "false", "true");
      }
    }
    if (config_.yarn && json_.contains("rope_scaling")) {
      range("rope_scaling.beta_fast", config_.yarn->beta_fast, 1.0, 1000.0);
      range("rope_scaling.beta_slow", config_.yarn->beta_slow, 0.01, config_.yarn->beta_fast);
      range("rope_scaling.mscale", config_.yarn->mscale, 0.0, 10.0);
      range("rope_scaling.mscale_all_dim", config_.yarn->mscale_all_dim, 0.0, 10.0);
    }
    for (const std::int64_t id : config_.eos_token_ids) {
      if (id != config_.bos_token_id) continue;
      add("unusual-value", "eos_token_id",
          fmt::format("eos_token_id and bos_token_id are both {}", id), std::to_string(id),
          "two tokens");
    }
  }

  void tokens() {
    const auto one = [&](const char* key, std::int64_t id) {
      if (id < config_.vocab_size) return;
      add("token-beyond-vocabulary", key,
          fmt::format("{} is {}, vocab_size is {}", key, id, config_.vocab_size),
          std::to_string(id), fmt::format("below {}", config_.vocab_size));
    };
    one("bos_token_id", config_.bos_token_id);
    for (const std::int64_t id : config_.eos_token_ids) one("eos_token_id", id);
    if (config_.pad_token_id) one("pad_token_id", *config_.pad_token_id);
  }

  void spelling() {
    const std::set<std::string> known(known_keys().begin(), known_keys().end());
    for (const auto& [key, value] : json_.items()) {
      if (known.count(key) > 0 || key.starts_with("_")) continue;
      const std::string nearest = nearest_name(key, known_keys());
      if (nearest.empty() || json_.contains(nearest)) continue;
      add("misspelt-key", key,
          fmt::format("the key {} is unknown; did you mean {}?", quote_text(key),
                      quote_text(nearest)),
          key, nearest);
    }
  }

  void defaults() {
    for (const char* key :
         {"bos_token_id", "eos_token_id", "first_k_dense_replace", "max_position_embeddings",
          "n_group", "n_shared_experts", "norm_topk_prob", "num_key_value_heads", "q_lora_rank",
          "rms_norm_eps", "routed_scaling_factor", "topk_group", "hidden_act",
          "tie_word_embeddings", "architectures", "model_type"}) {
      if (given(key)) continue;
      add("default-used", key, fmt::format("the key {} is absent", quote_text(key)), "absent", "");
    }
    const auto has_theta = [&](const char* block) {
      return json_.contains(block) && json_.at(block).is_object() &&
             json_.at(block).contains("rope_theta");
    };
    if (!given("rope_theta") && !has_theta("rope_scaling") && !has_theta("rope_parameters")) {
      add("default-used", "rope_theta", "the key \"rope_theta\" is absent", "absent", "");
    }
    if (!given("torch_dtype") && !given("dtype")) {
      add("default-used", "torch_dtype", "neither torch_dtype nor dtype is there", "absent", "");
    }
  }

  // Null and empty stand for absent, but where null says "none".
  bool given(const char* key) const {
    if (!json_.contains(key)) return false;
    const json& value = json_.at(key);
    if (value.is_null()) {
      constexpr std::array<std::string_view, 4> kNone{"bos_token_id", "eos_token_id",
                                                      "n_shared_experts", "q_lora_rank"};
      return std::find(kNone.begin(), kNone.end(), key) != kNone.end();
    }
    if (value.is_string()) return !value.get_ref<const std::string&>().empty();
    return !value.is_array() || !value.empty();
  }

  void published() {
    const PublishedModel* model = find_published(json_);
    if (model == nullptr) return;
    for (const PublishedDifference& difference : compare_published(*model, json_)) {
      add("differs-from-published", difference.key,
          fmt::format("the sizes are those of {}, but {} is {} instead of {}", model->name,
                      difference.key, difference.found, difference.expected),
          difference.found, difference.expected);
    }
  }

  const json& json_;
  const ModelConfig& config_;
  const std::string& file_;
  Findings& findings_;
};

}  // namespace

void check_config(const json& value, const ModelConfig& config, const std::string& file,
                  Findings& findings) {
  ConfigCheck(value, config, file, findings).run();
}

void check_quantisation_config(const json& config, const std::string& file, Findings& findings) {
  const auto entry = config.find("quantization_config");
  if (entry == config.end() || entry->is_null()) return;
  const auto add = [&](const char* rule, const std::string& key, const std::string& found,
                       const std::string& expected) {
    const std::string path = key.empty() ? "quantization_config" : "quantization_config." + key;
    findings.add(rule,
                 {.file = file,
                  .key = path,
                  .message = fmt::format("{}: {} is {}, needed is {}", file, path, found, expected),
                  .found = found,
                  .expected = expected});
  };
  const auto text = [&](const char* key) {
    return entry->contains(key) ? shown(entry->at(key)) : std::string("absent");
  };
  if (!entry->is_object()) return add("quantisation-method", "", shown(*entry), "an object");
  const auto is = [&](const char* key, const json& value) {
    return entry->contains(key) && entry->at(key) == value;
  };
  if (!is("quant_method", "fp8")) {
    // Its other keys have another meaning then.
    return add("quantisation-method", "quant_method", text("quant_method"), "\"fp8\"");
  }
  if (entry->contains("fmt") && !is("fmt", "e4m3"))
    add("fp8-format", "fmt", text("fmt"), "\"e4m3\"");
  if (!is("weight_block_size", json::array({128, 128}))) {
    add("block-size", "weight_block_size", text("weight_block_size"), "[128,128]");
  }
  const bool plain = !entry->contains("scale_fmt") || entry->at("scale_fmt").is_null() ||
                     is("scale_fmt", "float") || is("scale_fmt", "f32") || is("scale_fmt", "");
  if (!plain && !is("scale_fmt", "ue8m0")) {
    add("scale-format", "scale_fmt", text("scale_fmt"), "\"ue8m0\", or no such key");
  }
  if (!is("activation_scheme", "dynamic")) {
    add("activation-scheme", "activation_scheme", text("activation_scheme"), "\"dynamic\"");
  }
}

}  // namespace ds::check
