#include "libcore/check/checkpoint_target.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/check/checks.h"
#include "libcore/check/message_key.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

std::string text_of(const json& object, const char* key) {
  if (!object.contains(key)) return "";
  const json& value = object.at(key);
  if (value.is_array() && !value.empty() && value.front().is_string()) return value.front();
  return value.is_string() ? value.get<std::string>() : "";
}

// The rule for a config that is refused for its architecture; nullptr when it is not.
const char* foreign_rule(const json& config) {
  const std::string name = text_of(config, "architectures");
  const std::string type = text_of(config, "model_type");
  if (has(name, "DeepseekV32") || type == "deepseek_v32" || config.contains("index_topk") ||
      config.contains("index_n_heads")) {
    return "deepseek-v3.2";
  }
  if (has(name, "DeepseekV4") || has(type, "deepseek_v4")) return "deepseek-v4";
  if (has(name, "Qwen") || has(name, "Llama") || has(type, "qwen") || type == "llama") {
    return "distilled-model";
  }
  const bool v3 = type == "deepseek_v3" || type == "kimi_k2";
  const bool v2 = type == "deepseek_v2";
  if ((name == "DeepseekV3ForCausalLM" && v2) || (name == "DeepseekV2ForCausalLM" && v3)) {
    return "class-and-type";
  }
  if (name.empty() && type.empty()) {
    return config.contains("dim") && config.contains("n_layers") ? "inference-config" : nullptr;
  }
  for (const char* nested : {"text_config", "language_config", "vision_config"}) {
    if (config.contains(nested)) return "other-architecture";
  }
  const bool known_name =
      name.empty() || name == "DeepseekV3ForCausalLM" || name == "DeepseekV2ForCausalLM";
  return known_name && (type.empty() || v2 || v3) ? nullptr : "other-architecture";
}

// The key an error of parse_model_config is about: "FILE: KEY: ...", the first word in quotes after
// "key ", or a known key in the text.
std::string key_in(const std::string& message, const std::string& file, const json& config) {
  const std::string said = key_in_message(message, file);
  if (config.contains(said.substr(0, said.find('.'))) || has(message, ": the key is missing") ||
      has(message, "key '")) {
    if (!said.empty()) return said;
  }
  for (const char* key :
       {"scoring_func", "rope_scaling", "rope_parameters", "rope_theta", "topk_method",
        "num_experts_per_tok", "n_group", "n_routed_experts", "architectures"}) {
    if (has(message, key)) return key;
  }
  return has(message, "router '") ? "scoring_func" : "";
}

std::string dump(const json& config, const std::string& key) {
  const json* at = &config;
  std::size_t begin = 0;
  while (begin <= key.size()) {
    const std::size_t end = std::min(key.find('.', begin), key.size());
    const std::string part = key.substr(begin, end - begin);
    if (!at->is_object() || !at->contains(part)) return "absent";
    at = &at->at(part);
    begin = end + 1;
  }
  return at->dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 120);
}

}  // namespace

std::optional<json> read_config_json(const fs::path& folder, Findings& findings) {
  const fs::path path = folder / "config.json";
  std::error_code ignored;
  if (!fs::exists(path, ignored)) {
    findings.add("config-missing",
                 {.file = path.string(), .message = folder.string() + ": there is no config.json"});
    return std::nullopt;
  }
  try {
    json value = parse_json_file(path);
    if (value.is_object()) return value;
    findings.add("config-syntax", {.file = path.string(),
                                   .message = path.string() + ": a JSON object is needed",
                                   .found = value.type_name(),
                                   .expected = "object"});
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) throw;
    findings.add("config-syntax",
                 {.file = path.string(), .message = error.what(), .fix = error.hint()});
  }
  return std::nullopt;
}

std::optional<ModelConfig> read_model_config(const json& value, const std::string& file,
                                             Findings& findings) {
  json config = value;
  // Its own rules say what is wrong with it.
  config.erase("quantization_config");
  constexpr int kTries = 12;
  std::string last;  // the key refused before
  for (int attempt = 0; attempt < kTries; ++attempt) {
    try {
      return parse_model_config(config, file);
    } catch (const Error& error) {
      const std::string message = error.what();
      if (const char* foreign = foreign_rule(config)) {
        findings.add(foreign, {.file = file,
                               .key = "architectures",
                               .message = message,
                               .found = text_of(config, "architectures"),
                               .expected = "DeepseekV3ForCausalLM or DeepseekV2ForCausalLM"});
        return std::nullopt;
      }
      const std::string key = key_in(message, file, config);
      if (attempt > 0 && key == last) return std::nullopt;  // needed, and left out already
      last = key;
      findings.add("config-key", {.file = file,
                                  .key = key,
                                  .message = message,
                                  .found = key.empty() ? "" : dump(value, key),
                                  .fix = error.hint()});
      const std::string top = key.substr(0, key.find('.'));
      // Without the key its default holds; what cannot be built then ends the attempt.
      if (top.empty() || config.erase(top) == 0) return std::nullopt;
    }
  }
  return std::nullopt;
}

CheckpointTarget::CheckpointTarget(const fs::path& folder, Findings& findings)
    : folder_(folder), inspection_(Checkpoint::examine(folder)) {
  json_ = read_config_json(folder, findings);
  if (!json_) return;
  const std::string file = path_of("config.json");
  check_quantisation_config(*json_, file, findings);
  config_ = read_model_config(*json_, file, findings);
  if (config_) check_config(*json_, *config_, file, findings);
}

bool CheckpointTarget::unreadable(const std::string& tensor) const {
  const auto& list = inspection_.unreadable;
  return std::binary_search(list.begin(), list.end(), tensor);
}

}  // namespace ds::check
