#include "libcore/check/adapter_keys.h"

namespace ds::check {
namespace {

constexpr std::string_view kPrefix = "base_model.model.";

// Takes `ending`, or `ending` with an adapter's name behind it, off `key`.
bool take_ending(std::string_view& key, std::string_view ending, bool weight, bool& named) {
  const std::size_t at = key.rfind(ending);
  if (at == std::string_view::npos) return false;
  std::string_view rest = key.substr(at + ending.size());
  if (weight) {
    if (!rest.ends_with(".weight")) return false;
    rest.remove_suffix(std::string_view(".weight").size());
  }
  const bool name =
      rest.size() > 1 && rest[0] == '.' && rest.find('.', 1) == std::string_view::npos;
  if (!rest.empty() && !name) return false;
  named = name;
  key = key.substr(0, at);
  return true;
}

}  // namespace

AdapterKey split_adapter_key(std::string_view name) {
  AdapterKey key;
  std::string_view rest = name;
  int prefixes = 0;
  for (; rest.starts_with(kPrefix); ++prefixes) rest.remove_prefix(kPrefix.size());
  key.prefixed = prefixes == 1;
  if (take_ending(rest, ".lora_A", true, key.named)) {
    key.part = AdapterPart::kA;
  } else if (take_ending(rest, ".lora_B", true, key.named)) {
    key.part = AdapterPart::kB;
  } else if (take_ending(rest, ".lora_embedding_A", false, key.named)) {
    key.part = AdapterPart::kA;
    key.embedding = true;
  } else if (take_ending(rest, ".lora_embedding_B", false, key.named)) {
    key.part = AdapterPart::kB;
    key.embedding = true;
  } else if (take_ending(rest, ".lora_magnitude_vector", false, key.named)) {
    key.part = AdapterPart::kMagnitude;
  } else if (rest.ends_with(".base_layer.weight")) {
    key.part = AdapterPart::kBaseCopy;
  }
  if (rest.ends_with(".mlp.experts") || rest.ends_with(".mlp.experts.base_layer")) {
    key.part = AdapterPart::kFused;
  }
  key.module = std::string(rest);
  const bool lm_head = rest == "lm_head";
  key.prefixed = key.prefixed &&
                 (lm_head || (rest.starts_with("model.") && !rest.starts_with("model.model.")));
  return key;
}

const std::vector<std::string>& known_adapter_keys() {
  static const std::vector<std::string> kKeys{"alora_invocation_tokens",
                                              "alpha_pattern",
                                              "arrow_config",
                                              "auto_mapping",
                                              "base_model_name_or_path",
                                              "bias",
                                              "corda_config",
                                              "ensure_weight_tying",
                                              "eva_config",
                                              "exclude_modules",
                                              "fan_in_fan_out",
                                              "inference_mode",
                                              "init_lora_weights",
                                              "kasa_config",
                                              "layer_replication",
                                              "layers_pattern",
                                              "layers_to_transform",
                                              "loftq_config",
                                              "lora_alpha",
                                              "lora_bias",
                                              "lora_dropout",
                                              "lora_ga_config",
                                              "megatron_config",
                                              "megatron_core",
                                              "modules_to_save",
                                              "monteclora_config",
                                              "peft_type",
                                              "peft_version",
                                              "qalora_group_size",
                                              "r",
                                              "rank_pattern",
                                              "revision",
                                              "runtime_config",
                                              "target_modules",
                                              "target_parameters",
                                              "task_type",
                                              "trainable_token_indices",
                                              "use_bdlora",
                                              "use_dora",
                                              "use_qalora",
                                              "use_rslora",
                                              "velora_config"};
  return kKeys;
}

}  // namespace ds::check
