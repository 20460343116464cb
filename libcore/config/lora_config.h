// LoRA settings: which modules, with which rank and scale; and PEFT's adapter_config.json.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "libcore/config/model_config.h"

namespace ds {

// The linear modules of a model that may carry an adapter.
enum class ModuleKind { kAttention, kMlp, kSharedExperts, kExperts, kRouter, kEmbedding, kHead };
std::string_view module_kind_name(ModuleKind kind);  // "attention", "mlp", "shared_experts", ...

struct ModuleInfo {
  std::string
      path;  // "model.layers.3.mlp.experts.7.gate_proj": the checkpoint name without .weight
  ModuleKind kind = ModuleKind::kAttention;
  std::int64_t layer = -1;   // -1: embedding, head
  std::int64_t expert = -1;  // -1: not a routed expert
  std::int64_t in = 0;
  std::int64_t out = 0;
};
// Every linear module of the model, plus embed_tokens and lm_head, in checkpoint order: layer by
// layer q_a_proj|q_proj, q_b_proj, kv_a_proj_with_mqa, kv_b_proj, o_proj, then mlp gate, up, down
// or the experts 0.. (gate, up, down each) and shared_experts. The router (mlp.gate) is not listed:
// it is a plain parameter in transformers 4.
std::vector<ModuleInfo> list_modules(const ModelConfig& config);

inline constexpr std::int64_t kLargestLoraRank = 65536;

// As PEFT's LoraConfig. Patterns keep the order of the JSON file: the first match wins.
struct LoraConfig {
  std::int64_t r = 8;
  double alpha = 16.0;
  double dropout = 0.0;
  bool use_rslora = false;
  bool use_dora = false;
  std::string init = "true";  // "true", "gaussian", "false"
  // Either a list of names (a module matches when its path equals one or ends with "." + one) ...
  std::vector<std::string> target_modules;
  // ... or one regular expression matched against the whole path (non-empty = used).
  std::string target_regex;
  std::vector<std::string> target_parameters;  // "….gate_proj.weight" entries (formats.md 7.5)
  std::vector<std::string> exclude_modules;
  std::string exclude_regex;  // matched against the whole path (non-empty = used)
  std::vector<std::int64_t> layers_to_transform;  // empty = all; compared with the FIRST number
  std::vector<std::pair<std::string, std::int64_t>> rank_pattern;
  std::vector<std::pair<std::string, double>> alpha_pattern;
  std::string base_model_name_or_path;
  std::vector<std::string> modules_to_save;  // stored whole beside the adapter, never adapted
};

// The adapter of one module.
struct LoraTarget {
  ModuleInfo module;
  std::int64_t rank = 0;
  double alpha = 0.0;
  double scaling = 0.0;  // alpha / r or alpha / sqrt(r)
};
// What match_targets does with a name that matches no module: refuse it (a new adapter), or let it
// be as PEFT does when at least one other matches (an adapter read from a file).
enum class Unmatched { kRefuse, kAllow };
// PEFT's matching rules (reference/formats.md 7.3), in list_modules order. For a module that
// target_parameters names, the patterns are matched against its path + ".weight", as PEFT does.
// Throws Error(kBadInput) when nothing matches, or a name does not (kRefuse: target names, pattern
// keys, layer numbers), with the nearest valid names of this model; when a module is named twice,
// by target_modules and by target_parameters; for a regular expression that is broken or takes too
// many steps.
std::vector<LoraTarget> match_targets(const LoraConfig& lora, const ModelConfig& model,
                                      Unmatched unmatched = Unmatched::kRefuse);
// The same among these modules.
std::vector<LoraTarget> match_targets(const LoraConfig& lora,
                                      const std::vector<ModuleInfo>& modules,
                                      Unmatched unmatched = Unmatched::kRefuse);

// `--lora_target` spelling -> target_modules / target_regex: comma-separated attention | mlp |
// shared_experts | experts | all (those four; all-linear is another spelling) | module names, in
// which a segment may be `*` | one re:REGEX (alone). Throws Error(kUsage) with the nearest names
// when a word is neither a group nor matches a module of this model.
void set_targets(LoraConfig& lora, const std::string& spelling, const ModelConfig& model);

// Reads FOLDER/adapter_config.json as PEFT 0.10 to 0.21 write it; unknown keys are ignored. Throws
// Error(kBadInput) naming the key that we cannot honour (formats.md 7.6); modules_to_save is one of
// them unless the caller takes whole weights.
enum class WholeModules { kRefuse, kAllow };
LoraConfig load_lora_config(const std::filesystem::path& folder,
                            WholeModules whole = WholeModules::kRefuse);
LoraConfig parse_lora_config(std::string_view json_text, const std::string& where,
                             WholeModules whole = WholeModules::kRefuse);
// {"REGEX": NUMBER, ...} of rank_pattern and alpha_pattern, in the text's order. `where` names the
// text in errors. Throws Error(kBadInput).
std::vector<std::pair<std::string, std::int64_t>> parse_rank_pattern(std::string_view json_text,
                                                                     const std::string& where);
std::vector<std::pair<std::string, double>> parse_alpha_pattern(std::string_view json_text,
                                                                const std::string& where);
// The text of adapter_config.json that both generations of peft + transformers load correctly
// (formats.md 7.5), whatever the settings said: exactly the modules in `targets` with their ranks
// and scalings. Attention by leaf names, experts by experts.E.NAME, dense and shared MLPs in
// target_parameters (in target_modules for DoRA, which parameters cannot carry), full paths where a
// name would match more than the targets; r is the experts' rank; rsLoRA with experts rewritten as
// plain LoRA; dropout 0. Indent 2, keys sorted, no newline at the end. Throws Error(kUsage) when
// `targets` is empty.
std::string adapter_config_text(const LoraConfig& lora, const std::vector<LoraTarget>& targets,
                                const ModelConfig& model);
// The same among these modules. kFused: for tensors over the fused experts of transformers 5
// (formats.md 7.4), for PEFT 0.21: experts.gate_up_proj and experts.down_proj
// in target_parameters; `targets` names every expert of a layer with the rank of the fused tensor,
// gate_proj and up_proj both or neither.
enum class ExpertTensors { kPerExpert, kFused };
std::string adapter_config_text(const LoraConfig& lora, const std::vector<LoraTarget>& targets,
                                const std::vector<ModuleInfo>& modules,
                                ExpertTensors experts = ExpertTensors::kPerExpert);
// What some generation of PEFT will not load correctly from that file, one sentence each; empty for
// an adapter that every one loads.
std::vector<std::string> adapter_compatibility_notes(const LoraConfig& lora,
                                                     const std::vector<LoraTarget>& targets);

// Trainable parameters at rank r for these targets, by kind name.
std::map<std::string, std::int64_t> trainable_by_kind(const std::vector<LoraTarget>& targets,
                                                      bool use_dora);
// The largest rank >= 1 whose trainable share of the model's parameters stays below `share`
// (0.003 = 0.3 %); 0 when even rank 1 is above.
std::int64_t rank_for_budget(const LoraConfig& lora, const ModelConfig& model, double share);

}  // namespace ds
