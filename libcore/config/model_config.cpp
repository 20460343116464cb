#include "libcore/config/model_config.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/base/json.h"

namespace ds {
namespace {

using nlohmann::json;

constexpr std::int64_t kMaxWidth = std::int64_t{1} << 24;
constexpr std::int64_t kMaxLayers = 4096;
constexpr std::int64_t kMaxExperts = 65536;
constexpr std::int64_t kMaxExpertMlps = 1'000'000;
constexpr double kMaxParameters = 1e15;

constexpr const char* kSupported =
    "supported: DeepseekV2ForCausalLM and DeepseekV3ForCausalLM checkpoints (DeepSeek-V2, V2-Lite, "
    "V3, R1, V3.1, Moonlight, Kimi-K2)";

[[noreturn]] void fail(const std::string& message, const std::string& hint = "") {
  throw Error(ExitCode::kBadInput, message, hint);
}

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Why a config of another family is refused; empty when nothing better than its name can be said.
std::string known_foreigner(const std::string& architecture, const std::string& type) {
  if (architecture == "DeepseekV32ForCausalLM" || type == "deepseek_v32") {
    return "DeepSeek-V3.2 (sparse attention with an indexer)";
  }
  if (contains(architecture, "DeepseekV4") || contains(type, "deepseek_v4")) {
    return "DeepSeek-V4 (another attention, FP4 experts)";
  }
  if (contains(architecture, "KimiK25") || type == "kimi_k25") {
    return "Kimi-K2.5 (the text model nested under text_config, int4 experts)";
  }
  if (contains(architecture, "KimiVL") || contains(architecture, "VLV2") ||
      contains(architecture, "OCR") || contains(architecture, "ForConditionalGeneration") ||
      contains(type, "_vl")) {
    return "a vision-language model";
  }
  if (architecture == "DeepseekForCausalLM" || type == "deepseek") {
    return "DeepSeek-MoE, the first generation, without latent attention";
  }
  if (contains(architecture, "Qwen") || contains(architecture, "Llama") || contains(type, "qwen") ||
      type == "llama") {
    return "a dense model of another family; R1 distillations are such models";
  }
  return "";
}

[[noreturn]] void refuse(const std::string& where, const std::string& name,
                         const std::string& reason) {
  fail(where + ": architecture '" + name + "' is not supported" +
           (reason.empty() ? "" : ": this is " + reason),
       kSupported);
}

struct Family {
  ModelClass model_class;
  std::string architecture;
};

Family detect_family(const JsonObject& config) {
  const json& value = config.value();
  const std::string type = config.string("model_type", "");
  std::string architecture;
  if (config.has("architectures")) {
    const json& list = value.at("architectures");
    if (!list.is_array() || (!list.empty() && !list.front().is_string())) {
      fail(config.where() + ": key 'architectures' must be a list of names");
    }
    if (!list.empty()) architecture = list.front().get<std::string>();
  }
  if (architecture.empty() && type.empty()) {
    if (config.has("n_layers") && config.has("dim")) {
      fail(config.where() +
               ": this is the config of DeepSeek's inference code (keys 'dim', "
               "'n_layers'), not of a Hugging Face checkpoint",
           "convert the folder with: deepseek-convert weights IN OUT --to hf");
    }
    fail(config.where() + ": neither 'architectures' nor 'model_type' is present", kSupported);
  }
  const std::string name = architecture.empty() ? type : architecture;
  for (const char* nested : {"text_config", "language_config", "vision_config"}) {
    if (!config.has(nested)) continue;
    const std::string reason = known_foreigner(architecture, type);
    refuse(config.where(), name,
           reason.empty() ? "a composite model (key '" + std::string(nested) + "')" : reason);
  }
  const bool v3_type = type == "deepseek_v3" || type == "kimi_k2";
  const bool v2_type = type == "deepseek_v2";
  const bool v3_name = architecture == "DeepseekV3ForCausalLM";
  const bool v2_name = architecture == "DeepseekV2ForCausalLM";
  if ((v3_name && v2_type) || (v2_name && v3_type)) {
    fail(config.where() + ": 'architectures' says " + architecture + " but 'model_type' says " +
             type,
         "correct the one that is wrong");
  }
  const bool type_known = v3_type || v2_type || type.empty();
  const bool name_known = v3_name || v2_name || architecture.empty();
  if (!type_known || !name_known) {
    refuse(config.where(), name_known ? type : name, known_foreigner(architecture, type));
  }
  if (config.has("index_topk") || config.has("index_n_heads")) {
    refuse(config.where(), name, known_foreigner("DeepseekV32ForCausalLM", ""));
  }
  const bool v3 = v3_name || v3_type;
  return {v3 ? ModelClass::kV3 : ModelClass::kV2,
          v3 ? "DeepseekV3ForCausalLM" : "DeepseekV2ForCausalLM"};
}

// An integer within limits; `fallback` < low means the key is required.
std::int64_t bounded(const JsonObject& config, const char* key, std::int64_t low, std::int64_t high,
                     std::int64_t fallback) {
  const std::int64_t value = fallback < low ? config.integer(key) : config.integer(key, fallback);
  if (value < low || value > high) {
    fail(config.where() + ": key '" + key + "' is " + std::to_string(value) + ", it must be in " +
         std::to_string(low) + ".." + std::to_string(high));
  }
  return value;
}
std::int64_t required(const JsonObject& config, const char* key, std::int64_t low,
                      std::int64_t high) {
  return bounded(config, key, low, high, low - 1);
}

double positive(const JsonObject& config, const char* key, double fallback) {
  const double value = config.number(key, fallback);
  if (!std::isfinite(value) || value <= 0) {
    fail(config.where() + ": key '" + key + "' is " + config.value().at(key).dump() +
         ", it must be a finite number above 0");
  }
  return value;
}

void expect_value(const JsonObject& config, const char* key, std::int64_t needed) {
  if (config.has(key) && config.integer(key) != needed) {
    fail(config.where() + ": key '" + key + "' is " + std::to_string(config.integer(key)) +
         ", only " + std::to_string(needed) + " is supported");
  }
}

void parse_router(const JsonObject& config, ModelConfig& out) {
  const bool v3 = out.model_class == ModelClass::kV3;
  const std::string scoring = config.string("scoring_func", v3 ? "sigmoid" : "softmax");
  const std::string method = config.string("topk_method", v3 ? "noaux_tc" : "greedy");
  const bool legal =
      v3 ? scoring == "sigmoid" && method == "noaux_tc"
         : scoring == "softmax" && (method == "greedy" || method == "group_limited_greedy");
  if (!legal) {
    fail(config.where() + ": router '" + scoring + "' with '" + method + "' does not occur in " +
             out.architecture,
         v3 ? "needed: scoring_func sigmoid with topk_method noaux_tc"
            : "needed: scoring_func softmax with topk_method greedy or group_limited_greedy");
  }
  out.scoring = v3 ? RouterScoring::kSigmoid : RouterScoring::kSoftmax;
  out.method = method == "noaux_tc" ? RouterMethod::kNoauxTc
               : method == "greedy" ? RouterMethod::kGreedy
                                    : RouterMethod::kGroupLimitedGreedy;
  out.norm_topk_prob = config.boolean("norm_topk_prob", v3);
  if (!v3 && out.norm_topk_prob) {
    fail(config.where() +
             ": key 'norm_topk_prob' is true in a DeepseekV2 config, and the public "
             "implementations disagree on what that means",
         "every published V2 config has false; set it to false if the model was trained so");
  }
  out.routed_scaling_factor = positive(config, "routed_scaling_factor", v3 ? 2.5 : 1.0);
  if (out.n_routed_experts == 0) return;

  out.moe_intermediate_size = required(config, "moe_intermediate_size", 1, kMaxWidth);
  out.num_experts_per_tok = required(config, "num_experts_per_tok", 1, out.n_routed_experts);
  out.n_group = bounded(config, "n_group", 1, out.n_routed_experts, v3 ? 8 : 1);
  out.topk_group = bounded(config, "topk_group", 1, out.n_group, v3 ? 4 : 1);
  const auto text = [](std::int64_t value) { return std::to_string(value); };
  if (out.n_routed_experts % out.n_group != 0) {
    fail(config.where() + ": n_routed_experts " + text(out.n_routed_experts) +
         " is not a multiple of n_group " + text(out.n_group));
  }
  if (out.method == RouterMethod::kGreedy) return;
  const std::int64_t per_group = out.n_routed_experts / out.n_group;
  if (v3 && out.n_group > 1 && per_group < 2) {
    fail(config.where() + ": n_group " + text(out.n_group) + " leaves " + text(per_group) +
         " expert a group, the group score needs at least 2");
  }
  if (out.num_experts_per_tok > out.topk_group * per_group) {
    fail(config.where() + ": num_experts_per_tok " + text(out.num_experts_per_tok) +
         " is more than the " + text(out.topk_group * per_group) + " experts of topk_group " +
         text(out.topk_group) + " groups");
  }
}

void parse_rope(const JsonObject& config, ModelConfig& out) {
  out.rope_theta = positive(config, "rope_theta", 10000.0);
  // transformers 4 reads rope_scaling alone, transformers 5 prefers it when both are there.
  const char* key = config.has("rope_scaling")      ? "rope_scaling"
                    : config.has("rope_parameters") ? "rope_parameters"
                                                    : nullptr;
  if (key == nullptr) return;
  const JsonObject rope = config.object(key);
  for (const auto& [name, value] : rope.value().items()) {
    if (value.is_object()) {
      fail(rope.where() + ": rope settings by layer type ('" + name + "') are not supported");
    }
  }
  if (rope.has("rope_theta")) out.rope_theta = positive(rope, "rope_theta", 0.0);
  const std::string type = rope.string("rope_type", rope.string("type", "default"));
  if (type == "default") return;
  if (type != "yarn") {
    fail(rope.where() + ": rope type '" + type + "' is not supported",
         "models of this family use yarn or default");
  }
  YarnConfig yarn;
  yarn.original_max_position = bounded(rope, "original_max_position_embeddings", 1,
                                       std::int64_t{1} << 40, out.max_position_embeddings);
  yarn.factor = rope.number("factor", static_cast<double>(out.max_position_embeddings) /
                                          static_cast<double>(yarn.original_max_position));
  if (!std::isfinite(yarn.factor) || yarn.factor < 1.0) {
    fail(rope.where() + ": factor is " + std::to_string(yarn.factor) + ", it must be at least 1");
  }
  const auto or_default = [&](const char* name, double fallback) {
    const double value = rope.number(name, fallback);
    if (!std::isfinite(value) || value < 0) {
      fail(rope.where() + ": key '" + name + "' is " + rope.value().at(name).dump() +
           ", it must be a finite number, not negative");
    }
    return value == 0.0 ? fallback : value;
  };
  yarn.beta_fast = or_default("beta_fast", 32.0);
  yarn.beta_slow = or_default("beta_slow", 1.0);
  yarn.mscale = or_default("mscale", 0.0);
  yarn.mscale_all_dim = or_default("mscale_all_dim", 0.0);
  yarn.truncate = rope.boolean("truncate", true);
  if (rope.has("attention_factor")) {
    yarn.attention_factor = positive(rope, "attention_factor", 0.0);
  }
  if (out.rope_theta <= 1.0) {
    fail(config.where() + ": rope_theta must be above 1 for yarn");
  }
  out.yarn = yarn;
}

void parse_quantization(const JsonObject& config, ModelConfig& out) {
  if (!config.has("quantization_config")) return;
  const JsonObject block = config.object("quantization_config");
  QuantizationConfig quantization;
  quantization.quant_method = block.string("quant_method", "");
  if (quantization.quant_method != "fp8") {
    fail(block.where() + ": quantization '" + quantization.quant_method + "' is not supported",
         "use a BF16 checkpoint, or FP8 (e4m3) weights with 128x128 blocks");
  }
  const std::string format = block.string("fmt", "e4m3");
  if (format != "e4m3") {
    fail(block.where() + ": FP8 format '" + format + "' is not supported, only e4m3");
  }
  const json size =
      block.has("weight_block_size") ? block.value().at("weight_block_size") : json(nullptr);
  if (size != json::array({128, 128})) {
    fail(block.where() + ": weight_block_size is " + size.dump() + ", only [128,128] is supported");
  }
  quantization.scale_fmt = block.string("scale_fmt", "");
  if (quantization.scale_fmt == "float" || quantization.scale_fmt == "f32") {
    quantization.scale_fmt.clear();
  }
  if (!quantization.scale_fmt.empty() && quantization.scale_fmt != "ue8m0") {
    fail(block.where() + ": scale_fmt '" + quantization.scale_fmt +
         "' is not supported, only ue8m0 (or absent: f32)");
  }
  out.quantization = quantization;
}

void parse_tokens(const JsonObject& config, ModelConfig& out) {
  const bool v3 = out.model_class == ModelClass::kV3;
  const json& value = config.value();
  const auto given_null = [&](const char* key) {
    return value.contains(key) && value.at(key).is_null();
  };
  const auto token = [&](const json& entry, const char* key) {
    if (!entry.is_number_integer() || entry.get<double>() < 0 ||
        entry.get<double>() >= static_cast<double>(kMaxWidth)) {
      fail(config.where() + ": key '" + key + "' holds " + entry.dump() +
           ", a token id (or a list of them) is needed");
    }
    return entry.get<std::int64_t>();
  };
  out.bos_token_id = -1;
  if (config.has("bos_token_id")) {
    out.bos_token_id = token(value.at("bos_token_id"), "bos_token_id");
  } else if (!given_null("bos_token_id")) {
    out.bos_token_id = v3 ? 0 : 1;
  }
  if (config.has("eos_token_id")) {
    const json& eos = value.at("eos_token_id");
    if (eos.is_array()) {
      for (const json& entry : eos) out.eos_token_ids.push_back(token(entry, "eos_token_id"));
    } else {
      out.eos_token_ids.push_back(token(eos, "eos_token_id"));
    }
  } else if (!given_null("eos_token_id")) {
    out.eos_token_ids.push_back(v3 ? 1 : 2);
  }
  // -1 is a common way of saying "none".
  if (config.has("pad_token_id") && value.at("pad_token_id") != json(-1)) {
    out.pad_token_id = token(value.at("pad_token_id"), "pad_token_id");
  }
}

void parse_attention(const JsonObject& config, ModelConfig& out) {
  out.num_attention_heads = required(config, "num_attention_heads", 1, kMaxExperts);
  expect_value(config, "num_key_value_heads", out.num_attention_heads);
  const bool null_rank =
      config.value().contains("q_lora_rank") && config.value().at("q_lora_rank").is_null();
  out.q_lora_rank = null_rank ? 0 : bounded(config, "q_lora_rank", 0, kMaxWidth, 1536);
  out.kv_lora_rank = required(config, "kv_lora_rank", 1, kMaxWidth);
  out.qk_nope_head_dim = required(config, "qk_nope_head_dim", 1, kMaxExperts);
  out.qk_rope_head_dim = required(config, "qk_rope_head_dim", 2, kMaxExperts);
  out.v_head_dim = required(config, "v_head_dim", 1, kMaxExperts);
  if (out.qk_rope_head_dim % 2 != 0) {
    fail(config.where() + ": key 'qk_rope_head_dim' is " + std::to_string(out.qk_rope_head_dim) +
         ", it must be even");
  }
  out.attention_bias = config.boolean("attention_bias", false);
  out.rope_interleave = config.boolean("rope_interleave", true);
}

void check_size(const JsonObject& config, const ModelConfig& out) {
  const auto real = [](std::int64_t value) { return static_cast<double>(value); };
  const double layers = real(out.num_hidden_layers);
  if (out.n_routed_experts * out.num_hidden_layers > kMaxExpertMlps) {
    fail(config.where() + ": " + std::to_string(out.n_routed_experts) + " experts in " +
         std::to_string(out.num_hidden_layers) + " layers are more than " +
         std::to_string(kMaxExpertMlps) + " expert MLPs");
  }
  const double attention =
      real(out.num_attention_heads) *
          (real(out.q_head_dim()) * (real(out.q_lora_rank) + real(out.hidden_size)) +
           real(out.kv_lora_rank) * real(out.qk_nope_head_dim + out.v_head_dim) +
           real(out.v_head_dim) * real(out.hidden_size)) +
      real(out.hidden_size) * real(out.q_lora_rank + out.kv_lora_rank + out.qk_rope_head_dim);
  const double mlp =
      3.0 * real(out.hidden_size) *
      (real(out.intermediate_size) +
       real(out.moe_intermediate_size) * real(out.n_routed_experts + out.n_shared_experts));
  const double total =
      2.0 * real(out.vocab_size) * real(out.hidden_size) + layers * (attention + mlp);
  if (total > kMaxParameters) {
    fail(config.where() + ": these sizes make more than 10^15 parameters");
  }
}

}  // namespace

ModelConfig parse_model_config(const json& json_value, const std::string& where) {
  if (!json_value.is_object()) fail(where + ": a JSON object is needed");
  const JsonObject config(json_value, where);
  const Family family = detect_family(config);
  ModelConfig out;
  out.model_type = config.string("model_type", "");
  out.model_class = family.model_class;
  out.architecture = family.architecture;
  const bool v3 = out.model_class == ModelClass::kV3;

  out.vocab_size = required(config, "vocab_size", 1, kMaxWidth);
  out.hidden_size = required(config, "hidden_size", 1, kMaxWidth);
  out.intermediate_size = required(config, "intermediate_size", 1, kMaxWidth);
  out.num_hidden_layers = required(config, "num_hidden_layers", 1, kMaxLayers);
  out.first_k_dense_replace =
      bounded(config, "first_k_dense_replace", 0, std::int64_t{1} << 40, v3 ? 3 : 0);
  const bool no_experts = config.value().contains("n_routed_experts") &&
                          config.value().at("n_routed_experts").is_null();
  out.n_routed_experts = no_experts ? 0 : required(config, "n_routed_experts", 0, kMaxExperts);
  const bool no_shared = config.value().contains("n_shared_experts") &&
                         config.value().at("n_shared_experts").is_null();
  out.n_shared_experts =
      no_shared ? 0 : bounded(config, "n_shared_experts", 0, kMaxExperts, v3 ? 1 : 2);
  expect_value(config, "moe_layer_freq", 1);
  parse_router(config, out);
  parse_attention(config, out);
  out.rms_norm_eps = positive(config, "rms_norm_eps", 1e-6);
  const std::string activation = config.string("hidden_act", "silu");
  if (activation != "silu") {
    fail(where + ": key 'hidden_act' is '" + activation + "', only silu is supported");
  }
  out.max_position_embeddings =
      bounded(config, "max_position_embeddings", 1, std::int64_t{1} << 40, v3 ? 4096 : 2048);
  parse_rope(config, out);
  out.tie_word_embeddings = config.boolean("tie_word_embeddings", false);
  const std::int64_t mtp =
      v3 ? bounded(config, "num_mtp_layers", 0, kMaxLayers, 0) : std::int64_t{0};
  out.num_nextn_predict_layers = bounded(config, "num_nextn_predict_layers", 0, kMaxLayers, mtp);
  parse_tokens(config, out);
  out.dtype = config.string("torch_dtype", config.string("dtype", ""));
  parse_quantization(config, out);
  check_size(config, out);
  return out;
}

ModelConfig load_model_config(const std::filesystem::path& folder) {
  const std::filesystem::path path = folder / "config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    fail(folder.string() + ": there is no config.json",
         "a checkpoint folder in Hugging Face layout is needed");
  }
  return parse_model_config(parse_json_file(path), path.string());
}

}  // namespace ds
