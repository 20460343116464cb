// adapter_config.json in the one form that PEFT 0.18 with transformers 4 and PEFT 0.21 with
// transformers 5 both load correctly (reference/formats.md 7.5). PEFT 0.21 maps every target that
// ends in gate_proj or up_proj to the fused experts, so dense and shared MLPs go through
// target_parameters, and experts are named one by one.
#include <algorithm>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/config/lora_config.h"

namespace ds {
namespace {

using nlohmann::json;

std::string leaf_of(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// The parameter of transformers 5 that holds an expert's weight, without the layer.
std::string fused_name(const ModuleInfo& module) {
  return leaf_of(module.path) == "down_proj" ? "mlp.experts.down_proj" : "mlp.experts.gate_up_proj";
}

// The shortest name this file would use for the module: right when every module it matches is a
// target.
std::string short_name(const ModuleInfo& module, bool fused) {
  const std::string leaf = leaf_of(module.path);
  if (fused && module.kind == ModuleKind::kExperts) return fused_name(module);
  switch (module.kind) {
    case ModuleKind::kMlp:
      return "layers." + std::to_string(module.layer) + ".mlp." + leaf;
    case ModuleKind::kSharedExperts:
      return "shared_experts." + leaf;
    case ModuleKind::kExperts:
      return "experts." + std::to_string(module.expert) + "." + leaf;
    default:
      return leaf;
  }
}

std::string escape_regex(const std::string& name) {
  std::string out;
  for (const char c : name) out += c == '.' ? std::string("\\.") : std::string(1, c);
  return out;
}

json number(double value) {
  if (std::nearbyint(value) == value && std::abs(value) < 1e15) {
    return static_cast<std::int64_t>(value);
  }
  return value;
}

bool has_kind(const std::vector<LoraTarget>& targets, ModuleKind kind) {
  return std::any_of(targets.begin(), targets.end(),
                     [kind](const LoraTarget& target) { return target.module.kind == kind; });
}

struct Scale {
  std::int64_t rank = 0;
  double alpha = 0.0;
  bool operator<(const Scale& other) const {
    return rank != other.rank ? rank < other.rank : alpha < other.alpha;
  }
};

// The rank and alpha most modules have, of the experts when there are any. Of fused experts
// down_proj counts first: gate_up_proj has a rank of its own more often.
Scale common_scale(const std::vector<LoraTarget>& targets, const std::vector<Scale>& scales,
                   bool fused) {
  const bool experts = has_kind(targets, ModuleKind::kExperts);
  const bool down = fused && std::any_of(targets.begin(), targets.end(), [](const auto& target) {
                      return target.module.kind == ModuleKind::kExperts &&
                             leaf_of(target.module.path) == "down_proj";
                    });
  std::map<Scale, std::int64_t> votes;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const ModuleInfo& module = targets[i].module;
    if (experts && module.kind != ModuleKind::kExperts) continue;
    if (down && leaf_of(module.path) != "down_proj") continue;
    ++votes[scales[i]];
  }
  const auto best = std::max_element(
      votes.begin(), votes.end(), [](const auto& a, const auto& b) { return a.second < b.second; });
  return best->first;
}

}  // namespace

std::string adapter_config_text(const LoraConfig& lora, const std::vector<LoraTarget>& targets,
                                const ModelConfig& model) {
  return adapter_config_text(lora, targets, list_modules(model));
}

std::string adapter_config_text(const LoraConfig& lora, const std::vector<LoraTarget>& targets,
                                const std::vector<ModuleInfo>& all, ExpertTensors experts) {
  const bool fused = experts == ExpertTensors::kFused;
  if (targets.empty()) throw Error(ExitCode::kUsage, "an adapter without modules is not written");
  const bool plain =
      lora.use_rslora && has_kind(targets, ModuleKind::kExperts);  // rsLoRA written as plain LoRA
  std::vector<Scale> scales;
  for (const LoraTarget& target : targets) {
    const double alpha =
        plain ? target.alpha * std::sqrt(static_cast<double>(target.rank)) : target.alpha;
    scales.push_back({target.rank, alpha});
  }
  const Scale common = common_scale(targets, scales, fused);

  // Modules per short name: in the model and among the targets, and whether the latter agree.
  struct Group {
    std::int64_t in_model = 0;
    std::int64_t targeted = 0;
    Scale scale;
    bool same_rank = true;
    bool same_alpha = true;
  };
  std::unordered_map<std::string, Group> groups;
  for (const ModuleInfo& module : all) ++groups[short_name(module, fused)].in_model;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    Group& group = groups[short_name(targets[i].module, fused)];
    if (group.targeted++ == 0) group.scale = scales[i];
    group.same_rank = group.same_rank && group.scale.rank == scales[i].rank;
    group.same_alpha = group.same_alpha && group.scale.alpha == scales[i].alpha;
  }

  json modules = json::array();
  json parameters = json::array();
  json ranks = json::object();
  json alphas = json::object();
  std::unordered_set<std::string> written;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const ModuleInfo& module = targets[i].module;
    const Group& group = groups[short_name(module, fused)];
    const bool whole = group.targeted == group.in_model;
    const bool as_weight = !lora.use_dora && (module.kind == ModuleKind::kMlp ||
                                              module.kind == ModuleKind::kSharedExperts);
    const bool in_fused = fused && module.kind == ModuleKind::kExperts;
    const bool as_parameter = as_weight || in_fused;
    const std::string suffix = as_weight ? ".weight" : "";
    const std::string path =
        in_fused ? "model.layers." + std::to_string(module.layer) + "." + fused_name(module)
                 : module.path;
    const std::string name = (whole ? short_name(module, fused) : path) + suffix;
    if (written.insert(name).second) (as_parameter ? parameters : modules).push_back(name);
    const auto key = [&](bool same) {
      return escape_regex((whole && same ? short_name(module, fused) : path) + suffix);
    };
    if (scales[i].rank != common.rank) ranks[key(group.same_rank)] = scales[i].rank;
    if (scales[i].alpha != common.alpha) {
      alphas[key(group.same_alpha)] = number(scales[i].alpha);
    }
  }

  json init = lora.init;
  if (lora.init == "true" || lora.init == "false") init = lora.init == "true";
  const json base =
      lora.base_model_name_or_path.empty() ? json(nullptr) : json(lora.base_model_name_or_path);
  const json config = {{"alora_invocation_tokens", nullptr},
                       {"alpha_pattern", alphas},
                       {"arrow_config", nullptr},
                       {"auto_mapping", nullptr},
                       {"base_model_name_or_path", base},
                       {"bias", "none"},
                       {"corda_config", nullptr},
                       {"ensure_weight_tying", false},
                       {"eva_config", nullptr},
                       {"exclude_modules", nullptr},
                       {"fan_in_fan_out", false},
                       {"inference_mode", true},
                       {"init_lora_weights", init},
                       {"layer_replication", nullptr},
                       {"layers_pattern", nullptr},
                       {"layers_to_transform", nullptr},
                       {"loftq_config", json::object()},
                       {"lora_alpha", number(common.alpha)},
                       {"lora_bias", false},
                       {"lora_dropout", 0.0},
                       {"megatron_config", nullptr},
                       {"megatron_core", "megatron.core"},
                       {"modules_to_save",
                        lora.modules_to_save.empty() ? json(nullptr) : json(lora.modules_to_save)},
                       {"peft_type", "LORA"},
                       {"peft_version", "0.18.1"},
                       {"qalora_group_size", 16},
                       {"r", common.rank},
                       {"rank_pattern", ranks},
                       {"revision", nullptr},
                       {"target_modules", modules.empty() ? json(nullptr) : modules},
                       {"target_parameters", parameters.empty() ? json(nullptr) : parameters},
                       {"task_type", "CAUSAL_LM"},
                       {"trainable_token_indices", nullptr},
                       {"use_dora", lora.use_dora},
                       {"use_qalora", false},
                       {"use_rslora", lora.use_rslora && !plain}};
  return dump_json(config, 2);
}

std::vector<std::string> adapter_compatibility_notes(const LoraConfig& lora,
                                                     const std::vector<LoraTarget>& targets) {
  std::vector<std::string> out;
  std::set<std::string> projections;
  std::set<std::int64_t> expert_ranks;
  for (const LoraTarget& target : targets) {
    if (target.module.kind != ModuleKind::kExperts) continue;
    projections.insert(leaf_of(target.module.path));
    expert_ranks.insert(target.rank);
  }
  const bool down_alone = projections == std::set<std::string>{"down_proj"};
  if (!projections.empty() && projections.size() != 3 && !down_alone) {
    out.emplace_back(
        "experts without all three of gate_proj, up_proj and down_proj (or down_proj alone) do not "
        "load with PEFT 0.21 and transformers 5");
  }
  if (expert_ranks.size() > 1) {
    out.emplace_back("experts of different ranks do not load with PEFT 0.21 and transformers 5");
  }
  const bool dense = has_kind(targets, ModuleKind::kMlp);
  const bool shared = has_kind(targets, ModuleKind::kSharedExperts);
  if (lora.use_dora && (!projections.empty() || dense || shared)) {
    out.emplace_back("DoRA on MLP modules does not load with PEFT 0.21 and transformers 5");
  }
  return out;
}

}  // namespace ds
