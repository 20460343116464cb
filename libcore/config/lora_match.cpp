#include <algorithm>
#include <cctype>
#include <cmath>
#include <functional>
#include <iterator>
#include <optional>
#include <set>
#include <unordered_map>
#include <unordered_set>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/config/lora_config.h"
#include "libcore/config/path_regex.h"
#include "libcore/config/tail_patterns.h"

namespace ds {
namespace {

std::string join(const std::vector<std::string>& words, const char* separator = ", ") {
  std::string out;
  for (const std::string& word : words) out += (out.empty() ? "" : separator) + word;
  return out;
}

std::string leaf_of(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// The last names of the model's modules, in order of first appearance.
std::vector<std::string> leaf_names(const std::vector<ModuleInfo>& modules) {
  std::vector<std::string> out;
  std::unordered_set<std::string> seen;
  for (const ModuleInfo& module : modules) {
    if (std::string leaf = leaf_of(module.path); seen.insert(leaf).second) out.push_back(leaf);
  }
  return out;
}

// What someone who wrote `word` may have meant. Recipes of other families name q_proj, k_proj and
// v_proj; latent attention has other ones.
std::vector<std::string> nearest_targets(const std::string& word,
                                         const std::vector<std::string>& leaves) {
  const std::string leaf = leaf_of(word);
  const auto starting = [&](const std::string& start) {
    std::vector<std::string> out;
    for (const std::string& name : leaves) {
      if (name.rfind(start, 0) == 0) out.push_back(name);
    }
    return out;
  };
  if (leaf.rfind("q_", 0) == 0 || leaf == "query") return starting("q_");
  if (leaf.rfind("k_", 0) == 0 || leaf.rfind("v_", 0) == 0 || leaf.rfind("kv_", 0) == 0) {
    return starting("kv_");
  }
  if (leaf.rfind("qkv", 0) == 0 || leaf == "c_attn") {
    std::vector<std::string> out = starting("q_");
    for (const std::string& name : starting("kv_")) out.push_back(name);
    return out;
  }
  if (leaf == "gate_up_proj") return {"gate_proj", "up_proj"};
  std::vector<std::string> candidates = leaves;
  for (const char* group : {"attention", "mlp", "shared_experts", "experts", "all"}) {
    candidates.emplace_back(group);
  }
  const std::string near = nearest_name(leaf, candidates);
  return near.empty() ? std::vector<std::string>() : std::vector<std::string>{near};
}

[[noreturn]] void refuse_name(ExitCode code, const std::string& what, const std::string& word,
                              const std::vector<ModuleInfo>& modules) {
  const std::vector<std::string> leaves = leaf_names(modules);
  const std::vector<std::string> near = nearest_targets(word, leaves);
  std::string message = what + " '" + word + "' matches no module of this model";
  if (leaf_of(word) == "gate") {
    message += " (the router carries no adapter)";
  } else if (!near.empty()) {
    message += "; nearest: " + join(near);
  }
  throw Error(code, message,
              "modules of this model: " + join(leaves) +
                  "; groups: attention, mlp, shared_experts, experts, all");
}

// A set of names; a path matches when it equals one or ends with "." + one.
class SuffixSet {
 public:
  explicit SuffixSet(const std::vector<std::string>& names) : names_(names.begin(), names.end()) {}

  // The longest matching name, or nullptr.
  const std::string* find(std::string_view path) const {
    if (names_.empty()) return nullptr;
    for (std::size_t begin = 0;;) {
      const auto found = names_.find(std::string(path.substr(begin)));
      if (found != names_.end()) return &*found;
      const std::size_t dot = path.find('.', begin);
      if (dot == std::string_view::npos) return nullptr;
      begin = dot + 1;
    }
  }
  // Calls `visit` with every matching name.
  template <class Visit>
  void each(std::string_view path, Visit visit) const {
    for (std::size_t begin = 0;;) {
      const auto found = names_.find(std::string(path.substr(begin)));
      if (found != names_.end()) visit(*found);
      const std::size_t dot = path.find('.', begin);
      if (dot == std::string_view::npos) return;
      begin = dot + 1;
    }
  }

 private:
  std::unordered_set<std::string> names_;
};

// Whether target_modules, the exclusions and the layer limit name a module.
class ModuleMatcher {
 public:
  explicit ModuleMatcher(const LoraConfig& lora)
      : names_(lora.target_modules),
        full_(lora.target_modules.begin(), lora.target_modules.end()),
        excluded_(lora.exclude_modules),
        layers_(lora.layers_to_transform.begin(), lora.layers_to_transform.end()),
        all_linear_(lora.target_regex == "all-linear") {
    if (!lora.target_regex.empty() && !all_linear_) {
      regex_.emplace(lora.target_regex, PathRegex::Anchor::kWhole, "target_modules");
    }
    if (!lora.exclude_regex.empty()) {
      excluded_regex_.emplace(lora.exclude_regex, PathRegex::Anchor::kWhole, "exclude_modules");
    }
  }

  bool excluded(const ModuleInfo& module) const {
    return (excluded_regex_ && excluded_regex_->matches(module.path)) ||
           excluded_.find(module.path) != nullptr;
  }
  bool matches(const ModuleInfo& module) const {
    if (excluded(module)) return false;
    if (all_linear_) {
      return module.kind != ModuleKind::kHead && module.kind != ModuleKind::kEmbedding;
    }
    if (regex_) return regex_->matches(module.path);
    // PEFT does not apply the layer limit to a module named by its whole path.
    if (full_.count(module.path) != 0) return true;
    if (names_.find(module.path) == nullptr) return false;
    return layers_.empty() || layers_.count(module.layer) != 0;
  }

 private:
  SuffixSet names_;
  std::unordered_set<std::string> full_;
  SuffixSet excluded_;
  std::set<std::int64_t> layers_;
  bool all_linear_;
  std::optional<PathRegex> regex_;
  std::optional<PathRegex> excluded_regex_;
};

void check_settings(const LoraConfig& lora, const std::vector<ModuleInfo>& modules,
                    Unmatched unmatched) {
  const auto fail = [](const std::string& message) { throw Error(ExitCode::kBadInput, message); };
  if (!lora.target_regex.empty() && !lora.layers_to_transform.empty()) {
    fail("layers_to_transform cannot limit a target_modules that is a regular expression");
  }
  if (unmatched == Unmatched::kAllow) return;
  std::int64_t last = -1;
  for (const ModuleInfo& module : modules) last = std::max(last, module.layer);
  for (const std::int64_t layer : lora.layers_to_transform) {
    if (layer < 0 || layer > last) {
      fail("layers_to_transform holds " + std::to_string(layer) + ", this model has layers 0.." +
           std::to_string(last));
    }
  }
}

// transformers 5 keeps a layer's experts in two parameters, experts.gate_up_proj and
// experts.down_proj, and peft 0.21 names those (reference/formats.md 7.5).
bool names_fused(const std::string& name) {
  return leaf_of(name) == "gate_up_proj" || name == "down_proj" ||
         name.ends_with("experts.down_proj");
}

// Those of target_parameters that name a fused parameter.
SuffixSet fused_names(const LoraConfig& lora) {
  std::vector<std::string> fused;
  std::copy_if(lora.target_parameters.begin(), lora.target_parameters.end(),
               std::back_inserter(fused), names_fused);
  return SuffixSet(fused);
}

// The fused parameter that holds this module, if the adapter names it; else empty. Gate and up then
// both have the fused rank: they share A, and each has its half of B.
std::string fused_parameter_of(const ModuleInfo& module, const SuffixSet& named) {
  if (module.kind != ModuleKind::kExperts) return "";
  const std::string leaf = leaf_of(module.path) == "down_proj" ? "down_proj" : "gate_up_proj";
  std::string path = "model.layers." + std::to_string(module.layer) + ".mlp.experts." + leaf;
  return named.find(path) != nullptr ? path : "";
}

void check_names_used(const LoraConfig& lora, const std::vector<ModuleInfo>& modules) {
  const auto check = [&](const std::vector<std::string>& names, const char* what,
                         const char* suffix) {
    std::unordered_set<std::string> waiting(names.begin(), names.end());
    const SuffixSet set(names);
    for (const ModuleInfo& module : modules) {
      if (waiting.empty()) return;
      set.each(module.path + suffix, [&](const std::string& name) { waiting.erase(name); });
    }
    for (const std::string& name : names) {
      if (waiting.count(name) != 0) refuse_name(ExitCode::kBadInput, what, name, modules);
    }
  };
  check(lora.target_modules, "target module", "");
  std::vector<std::string> parameters;
  for (const std::string& name : lora.target_parameters) {
    if (!names_fused(name)) parameters.push_back(name);
  }
  check(parameters, "target parameter", ".weight");
}

[[noreturn]] void refuse_no_match(const LoraConfig& lora, const std::vector<ModuleInfo>& modules) {
  std::vector<std::string> named = lora.target_modules;
  named.insert(named.end(), lora.target_parameters.begin(), lora.target_parameters.end());
  if (!lora.target_regex.empty()) named.push_back(lora.target_regex);
  if (named.size() == 1 && lora.target_regex.empty()) {
    refuse_name(ExitCode::kBadInput, "target module", named.front(), modules);
  }
  if (named.size() > 8) {
    named.resize(8);
    named.emplace_back("...");
  }
  throw Error(ExitCode::kBadInput,
              named.empty() ? "the adapter names no target module"
                            : "no module of this model matches the targets " + join(named),
              "modules of this model: " + join(leaf_names(modules)));
}

}  // namespace

std::vector<LoraTarget> match_targets(const LoraConfig& lora, const ModelConfig& model,
                                      Unmatched unmatched) {
  return match_targets(lora, list_modules(model), unmatched);
}

std::vector<LoraTarget> match_targets(const LoraConfig& lora,
                                      const std::vector<ModuleInfo>& modules, Unmatched unmatched) {
  check_settings(lora, modules, unmatched);
  if (unmatched == Unmatched::kRefuse) check_names_used(lora, modules);
  const ModuleMatcher matcher(lora);
  const SuffixSet parameters(lora.target_parameters);
  const SuffixSet fused_parameters = fused_names(lora);
  PatternValues<std::int64_t> ranks(lora.rank_pattern, "rank_pattern");
  PatternValues<double> alphas(lora.alpha_pattern, "alpha_pattern");
  std::vector<LoraTarget> out;
  for (const ModuleInfo& module : modules) {
    const bool as_module = matcher.matches(module);
    const std::string weight = module.path + ".weight";
    const bool as_parameter = parameters.find(weight) != nullptr;
    const std::string fused = as_module ? "" : fused_parameter_of(module, fused_parameters);
    if (!as_module && !as_parameter && fused.empty()) continue;
    if (as_module && as_parameter) {
      throw Error(ExitCode::kBadInput, "module " + module.path +
                                           " is named twice, by target_modules and by "
                                           "target_parameters");
    }
    const std::string& key = as_module ? module.path : fused.empty() ? weight : fused;
    LoraTarget target;
    target.module = module;
    target.rank = ranks.find(key).value_or(lora.r);
    target.alpha = alphas.find(key).value_or(lora.alpha);
    if (target.rank < 1 || target.rank > kLargestLoraRank) {
      throw Error(ExitCode::kBadInput, "the rank of " + module.path + " is " +
                                           std::to_string(target.rank) + ", it must be in 1.." +
                                           std::to_string(kLargestLoraRank));
    }
    const auto rank = static_cast<double>(target.rank);
    target.scaling = target.alpha / (lora.use_rslora ? std::sqrt(rank) : rank);
    out.push_back(std::move(target));
  }
  if (out.empty()) refuse_no_match(lora, modules);
  if (unmatched == Unmatched::kRefuse) {
    for (const auto& [what, keys] :
         {std::pair("rank", ranks.unused()), std::pair("alpha", alphas.unused())}) {
      if (keys.empty()) continue;
      throw Error(ExitCode::kBadInput, std::string(what) + "_pattern: the key '" + keys.front() +
                                           "' matches no adapted module");
    }
  }
  return out;
}

namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> out(1);
  for (const char c : text) {
    if (c == separator) {
      out.emplace_back();
    } else {
      out.back() += c;
    }
  }
  return out;
}

std::string trim(const std::string& text) {
  const auto first = text.find_first_not_of(" \t\n\r");
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(" \t\n\r") - first + 1);
}

// The names that select exactly the modules of a kind (PEFT's suffix rule).
std::string group_name(const ModuleInfo& module) {
  std::string leaf = leaf_of(module.path);
  switch (module.kind) {
    case ModuleKind::kMlp:
      return "mlp." + leaf;
    case ModuleKind::kSharedExperts:
      return "shared_experts." + leaf;
    case ModuleKind::kExperts:
      return "experts." + std::to_string(module.expert) + "." + leaf;
    default:
      return leaf;
  }
}

// The last segments of `path` when they equal the pattern's, in which "*" is any segment.
std::string match_segments(const std::string& path, const std::vector<std::string>& pattern) {
  const std::vector<std::string> segments = split(path, '.');
  if (segments.size() < pattern.size()) return "";
  const std::size_t skip = segments.size() - pattern.size();
  for (std::size_t i = 0; i < pattern.size(); ++i) {
    if (pattern[i] != "*" && pattern[i] != segments[skip + i]) return "";
  }
  return join({segments.begin() + static_cast<std::ptrdiff_t>(skip), segments.end()}, ".");
}

}  // namespace

void set_targets(LoraConfig& lora, const std::string& spelling, const ModelConfig& model) {
  lora.target_modules.clear();
  lora.target_regex.clear();
  lora.target_parameters.clear();
  const std::vector<ModuleInfo> modules = list_modules(model);
  const std::string text = trim(spelling);
  if (text.rfind("re:", 0) == 0) {
    lora.target_regex = text.substr(3);
    bool found = false;
    try {
      const PathRegex regex(lora.target_regex, PathRegex::Anchor::kWhole, "--lora_target");
      for (const ModuleInfo& module : modules) found = found || regex.matches(module.path);
    } catch (const Error& error) {
      throw Error(ExitCode::kUsage, error.what(), error.hint());
    }
    if (lora.target_regex.empty() || !found) {
      throw Error(ExitCode::kUsage,
                  "--lora_target: the regular expression '" + lora.target_regex +
                      "' matches no module of this model",
                  "it is matched against whole paths such as " + modules[1].path);
    }
    return;
  }
  std::unordered_set<std::string> seen;
  const auto add = [&](const std::string& name) {
    if (seen.insert(name).second) lora.target_modules.push_back(name);
  };
  for (const std::string& part : split(text, ',')) {
    const std::string word = trim(part);
    if (word.empty()) {
      throw Error(ExitCode::kUsage, "--lora_target '" + spelling + "' has an empty name");
    }
    const std::vector<std::string> pattern = split(word, '.');
    const bool every = word == "all" || word == "all-linear";
    const bool group = every || word == "attention" || word == "mlp" || word == "shared_experts" ||
                       word == "experts";
    bool found = false;
    for (const ModuleInfo& module : modules) {
      if (group) {
        if (module.kind == ModuleKind::kHead || module.kind == ModuleKind::kEmbedding) continue;
        if (!every && module_kind_name(module.kind) != word) continue;
        found = true;
        add(every ? leaf_of(module.path) : group_name(module));
      } else if (const std::string name = match_segments(module.path, pattern); !name.empty()) {
        found = true;
        add(name);
      }
    }
    if (found) continue;
    if (group) {
      throw Error(ExitCode::kUsage,
                  "--lora_target: this model has no module of the group '" + word + "'");
    }
    refuse_name(ExitCode::kUsage, "--lora_target:", word, modules);
  }
}

}  // namespace ds
