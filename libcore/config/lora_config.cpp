#include "libcore/config/lora_config.h"

#include <cmath>
#include <nlohmann/json.hpp>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/json.h"

namespace ds {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

[[noreturn]] void fail(const std::string& message, const std::string& hint = "") {
  throw Error(ExitCode::kBadInput, message, hint);
}

// A value that says "not used": absent, null, false, empty.
bool is_unset(const json& object, const char* key) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return true;
  if (found->is_boolean()) return !found->get<bool>();
  if (found->is_string()) return found->get_ref<const std::string&>().empty();
  if (found->is_structured()) return found->empty();
  return false;
}

// The document again, with its members in the file's order. parse_json_text has accepted the text
// before: limits and duplicates are checked.
ordered_json parse_ordered(std::string_view text) {
  ordered_json value;
  try_parse_json(text, true, value);
  return value;
}

template <class Value>
std::vector<std::pair<std::string, Value>> read_pattern(const ordered_json& value,
                                                        const std::string& where) {
  std::vector<std::pair<std::string, Value>> out;
  if (value.is_null()) return out;
  if (!value.is_object()) fail(where + ": an object of regular expressions and numbers is needed");
  for (const auto& [key, entry] : value.items()) {
    const bool fits = std::is_integral_v<Value> ? entry.is_number_integer() : entry.is_number();
    const double number = fits ? entry.template get<double>() : 0.0;
    if (!fits || !std::isfinite(number) || number <= 0 ||
        (std::is_integral_v<Value> && number > static_cast<double>(kLargestLoraRank))) {
      fail(where + ": '" + key + "' has " + entry.dump() + ", a positive " +
           (std::is_integral_v<Value> ? "integer" : "number") + " is needed");
    }
    out.emplace_back(key, entry.template get<Value>());
  }
  return out;
}

std::vector<std::string> read_names(const json& value, const std::string& where) {
  std::vector<std::string> out;
  if (value.is_null()) return out;
  if (!value.is_array()) fail(where + ": a list of names is needed");
  for (const json& entry : value) {
    if (!entry.is_string() || entry.get_ref<const std::string&>().empty()) {
      fail(where + ": holds " + entry.dump(-1, ' ', false, json::error_handler_t::replace) +
           ", a module name is needed");
    }
    out.push_back(entry.get<std::string>());
  }
  return out;
}

void refuse_unsupported(const JsonObject& config, WholeModules whole) {
  const json& object = config.value();
  struct Rule {
    const char* key;
    const char* meaning;
  };
  // Settings that change what the adapter computes; ignoring one would give wrong numbers.
  static constexpr Rule kRules[] = {
      {"lora_bias", "biases inside the adapter"},
      {"modules_to_save", "whole modules trained beside the adapter"},
      {"trainable_token_indices", "single embedding rows trained beside the adapter"},
      {"layer_replication", "layers that are used twice"},
      {"use_qalora", "QA-LoRA's pooled inputs"},
      {"alora_invocation_tokens", "an adapter that acts after certain tokens only"},
      {"fan_in_fan_out", "transposed weights, which this family does not have"},
      {"use_bdlora", "block-diagonal factors"},
      {"megatron_config", "Megatron's parallel layers"},
      {"loftq_config", "a base that LoftQ changed"},
      {"corda_config", "a base that CorDA changed"},
      {"arrow_config", "routing between adapters"},
      {"kasa_config", "KaSA's decomposition"},
      {"lora_ga_config", "a base that LoRA-GA changed"},
      {"monteclora_config", "MonteCLoRA's sampling"},
      {"velora_config", "VeLoRA's projections"},
  };
  for (const Rule& rule : kRules) {
    if (is_unset(object, rule.key)) continue;
    if (whole == WholeModules::kAllow && std::string_view(rule.key) == "modules_to_save") continue;
    fail(config.where() + ": key '" + rule.key + "' is " +
             object.at(rule.key).dump(-1, ' ', false, json::error_handler_t::replace) +
             ", which is not supported (" + rule.meaning + ")",
         "only plain LoRA, rsLoRA and DoRA adapters are read");
  }
  const std::string bias = config.string("bias", "none");
  if (bias != "none") {
    fail(config.where() + ": key 'bias' is '" + bias + "', only 'none' is supported",
         "this family's layers have no trained biases");
  }
  if (!is_unset(object, "layers_pattern")) {
    const json& pattern = object.at("layers_pattern");
    if (pattern != json("layers") && pattern != json::array({"layers"})) {
      fail(config.where() + ": key 'layers_pattern' is " + pattern.dump() +
           ", this family's layers are called 'layers'");
    }
  }
}

std::string read_init(const JsonObject& config) {
  const auto found = config.value().find("init_lora_weights");
  if (found == config.value().end() || found->is_null()) return "true";
  if (found->is_boolean()) return found->get<bool>() ? "true" : "false";
  const std::string name = config.string("init_lora_weights");
  if (name == "gaussian") return name;
  fail(config.where() + ": init_lora_weights '" + name + "' is not supported",
       "supported are true, false and gaussian: the others change the base model or need data");
}

}  // namespace

std::vector<std::pair<std::string, std::int64_t>> parse_rank_pattern(std::string_view json_text,
                                                                     const std::string& where) {
  parse_json_text(json_text, where);
  return read_pattern<std::int64_t>(parse_ordered(json_text), where);
}

std::vector<std::pair<std::string, double>> parse_alpha_pattern(std::string_view json_text,
                                                                const std::string& where) {
  parse_json_text(json_text, where);
  return read_pattern<double>(parse_ordered(json_text), where);
}

LoraConfig parse_lora_config(std::string_view json_text, const std::string& where,
                             WholeModules whole) {
  const json object = parse_json_text(json_text, where);
  if (!object.is_object()) fail(where + ": a JSON object is needed");
  const JsonObject config(object, where);
  const std::string type = config.string("peft_type");
  if (type != "LORA") {
    fail(where + ": peft_type '" + type + "' is not supported, only LORA is");
  }
  refuse_unsupported(config, whole);

  LoraConfig out;
  out.r = config.integer("r", 8);
  if (out.r < 1 || out.r > kLargestLoraRank) {
    fail(where + ": key 'r' is " + std::to_string(out.r) + ", it must be in 1.." +
         std::to_string(kLargestLoraRank));
  }
  out.alpha = config.number("lora_alpha", 8.0);
  out.dropout = config.number("lora_dropout", 0.0);
  if (!std::isfinite(out.alpha)) fail(where + ": key 'lora_alpha' is not finite");
  if (!(out.dropout >= 0.0 && out.dropout < 1.0)) {
    fail(where + ": key 'lora_dropout' is " + std::to_string(out.dropout) +
         ", it must be in [0, 1)");
  }
  out.use_rslora = config.boolean("use_rslora", false);
  out.use_dora = config.boolean("use_dora", false);
  out.init = read_init(config);
  out.base_model_name_or_path = config.string("base_model_name_or_path", "");

  const bool has_parameters = !is_unset(object, "target_parameters");
  if (!object.contains("target_modules") && !has_parameters) {
    fail(where + ": key 'target_modules' is missing");
  }
  const json targets = object.value("target_modules", json(nullptr));
  if (targets.is_string()) {
    out.target_regex = targets.get<std::string>();
  } else {
    out.target_modules = read_names(targets, where + ": target_modules");
  }
  if (has_parameters) {
    out.target_parameters =
        read_names(object.at("target_parameters"), where + ": target_parameters");
  }
  if (out.target_regex.empty() && out.target_modules.empty() && out.target_parameters.empty()) {
    fail(where + ": neither 'target_modules' nor 'target_parameters' names anything");
  }
  if (config.has("exclude_modules")) {
    const json& excluded = object.at("exclude_modules");
    if (excluded.is_string()) {
      out.exclude_regex = excluded.get<std::string>();
    } else {
      out.exclude_modules = read_names(excluded, where + ": exclude_modules");
    }
  }
  if (config.has("layers_to_transform")) {
    json layers = object.at("layers_to_transform");
    if (!layers.is_array()) layers = json::array({layers});
    for (const json& layer : layers) {
      if (!layer.is_number_integer() || layer.get<double>() < 0 || layer.get<double>() > 1e9) {
        fail(where + ": layers_to_transform holds " + layer.dump() + ", a layer number is needed");
      }
      out.layers_to_transform.push_back(layer.get<std::int64_t>());
    }
    if (!out.target_regex.empty() && !out.layers_to_transform.empty()) {
      fail(where +
           ": layers_to_transform cannot limit a target_modules that is a regular "
           "expression");
    }
  }
  if (!is_unset(object, "modules_to_save")) {
    out.modules_to_save = read_names(object.at("modules_to_save"), where + ": modules_to_save");
    // They are never adapted, whatever the targets say.
    out.exclude_modules.insert(out.exclude_modules.end(), out.modules_to_save.begin(),
                               out.modules_to_save.end());
  }
  const ordered_json ordered = parse_ordered(json_text);
  const auto member = [&](const char* key) {
    return ordered.contains(key) ? ordered.at(key) : ordered_json(nullptr);
  };
  out.rank_pattern = read_pattern<std::int64_t>(member("rank_pattern"), where + ": rank_pattern");
  out.alpha_pattern = read_pattern<double>(member("alpha_pattern"), where + ": alpha_pattern");
  return out;
}

LoraConfig load_lora_config(const std::filesystem::path& folder, WholeModules whole) {
  const std::filesystem::path path = folder / "adapter_config.json";
  std::error_code ignored;
  if (!std::filesystem::exists(path, ignored)) {
    fail(folder.string() + ": there is no adapter_config.json",
         "an adapter folder as PEFT writes it is needed");
  }
  if (std::filesystem::file_size(path, ignored) > std::uintmax_t{64} << 20) {
    fail(path.string() + ": more than 64 MiB for an adapter's settings");
  }
  return parse_lora_config(read_file(path), path.string(), whole);
}

}  // namespace ds
