#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/check/adapter_keys.h"
#include "libcore/check/alike.h"
#include "libcore/check/checks.h"
#include "libcore/check/message_key.h"
#include "libcore/check/tensor_stats.h"
#include "libcore/config/lora_config.h"
#include "libcore/config/tail_patterns.h"
#include "libcore/io/safetensors_header.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using kernels::DType;
using nlohmann::json;

constexpr const char* kConfigName = "adapter_config.json";
constexpr const char* kWeightsName = "adapter_model.safetensors";

bool there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}
std::string shown(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 120);
}
bool is_set(const json& config, const char* key) {
  const auto value = config.find(key);
  if (value == config.end() || value->is_null() || *value == false) return false;
  return !(value->is_structured() || value->is_string()) || !value->empty();
}

// The tensors of one module.
struct Parts {
  const TensorInfo* a = nullptr;
  const TensorInfo* b = nullptr;
  const TensorInfo* magnitude = nullptr;
  bool embedding = false;
  const TensorInfo* any() const { return a != nullptr ? a : b != nullptr ? b : magnitude; }
};

class AdapterCheck {
 public:
  AdapterCheck(const fs::path& folder, const ModelConfig* base, bool deep, Findings& findings)
      : folder_(folder), base_(base), deep_(deep), findings_(findings) {}

  AdapterSize run() {
    read_config();
    read_weights();
    if (!file_) return {};
    AdapterSize size{file_->tensors().size(), 0};
    for (const TensorInfo& tensor : file_->tensors()) size.bytes += tensor.bytes();
    keys();
    pairs();
    if (base_ != nullptr) against_base();
    if (lora_) {
      ranks();
      generations();
    }
    if (deep_) values();
    alike_.flush(findings_);
    return size;
  }

 private:
  std::string path(const char* name) const { return (folder_ / name).string(); }
  void add(const char* rule, const char* file, const std::string& key, const std::string& what,
           const std::string& found = "", const std::string& expected = "") {
    findings_.add(rule, {.file = path(file),
                         .key = key,
                         .message = fmt::format("{}: {}", path(file), what),
                         .found = found,
                         .expected = expected});
  }
  void add_tensor(const char* rule, const std::string& kind, const TensorInfo& tensor,
                  const std::string& what, const std::string& found = "",
                  const std::string& expected = "") {
    alike_.add(rule, kind, found, expected, [&] {
      return Finding{.file = path(kWeightsName),
                     .tensor = std::string(tensor.name),
                     .message = fmt::format("{}: tensor {} {}", path(kWeightsName),
                                            quote_text(tensor.name), what)};
    });
  }

  void read_config() {
    if (!there(folder_ / kConfigName)) {
      add("adapter-config-missing", kConfigName, "", "there is no such file");
      return;
    }
    json config;
    try {
      config = parse_json_file(folder_ / kConfigName);
      if (!config.is_object()) {
        add("adapter-config-syntax", kConfigName, "", "a JSON object is needed");
        return;
      }
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      findings_.add("adapter-config-syntax", {.file = path(kConfigName), .message = error.what()});
      return;
    }
    const auto text = [&](const char* key) {
      return config.contains(key) ? shown(config.at(key)) : std::string("absent");
    };
    if (!config.contains("peft_type") || config.at("peft_type") != "LORA") {
      add("adapter-type", kConfigName, "peft_type", "peft_type is " + text("peft_type"),
          text("peft_type"), "\"LORA\"");
      return;
    }
    if (!config.contains("task_type") || config.at("task_type") != "CAUSAL_LM") {
      add("adapter-task", kConfigName, "task_type", "task_type is " + text("task_type"),
          text("task_type"), "\"CAUSAL_LM\"");
    }
    if (is_set(config, "fan_in_fan_out")) {
      add("fan-in-fan-out", kConfigName, "fan_in_fan_out",
          "fan_in_fan_out is " + text("fan_in_fan_out"), text("fan_in_fan_out"), "false");
      config.erase("fan_in_fan_out");
    }
    for (const char* key : {"modules_to_save", "trainable_token_indices"}) {
      if (!is_set(config, key)) continue;
      add("extra-weights", kConfigName, key, fmt::format("{} is {}", key, text(key)), text(key),
          "null");
      config.erase(key);
    }
    for (const char* key :
         {"lora_bias", "layer_replication", "use_qalora", "alora_invocation_tokens", "use_bdlora",
          "megatron_config", "loftq_config", "corda_config", "arrow_config", "kasa_config",
          "lora_ga_config", "monteclora_config", "velora_config", "eva_config"}) {
      if (!is_set(config, key)) continue;
      add("uncommon-setting", kConfigName, key, fmt::format("{} is {}", key, text(key)), text(key));
      config.erase(key);
    }
    if (config.contains("bias") && config.at("bias") != "none") {
      add("uncommon-setting", kConfigName, "bias", "bias is " + text("bias"), text("bias"),
          "\"none\"");
      config.erase("bias");
    }
    adapter_settings(config);
    const std::string base = config.contains("base_model_name_or_path") &&
                                     config.at("base_model_name_or_path").is_string()
                                 ? config.at("base_model_name_or_path").get<std::string>()
                                 : "";
    if (base.empty() || base.starts_with("/")) {
      add("base-name", kConfigName, "base_model_name_or_path",
          base.empty() ? "base_model_name_or_path is absent"
                       : "base_model_name_or_path is a path: " + quote_text(base),
          base);
    }
    if (config.contains("target_modules") && config.at("target_modules") == "all-linear") {
      add("all-linear", kConfigName, "target_modules", "target_modules is \"all-linear\"",
          "all-linear");
      config["target_modules"] = {"gate_proj", "up_proj", "down_proj"};
      all_linear_ = true;
    }
    try {
      lora_ = parse_lora_config(in_file_order(config).dump(), path(kConfigName));
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      findings_.add("adapter-value", {.file = path(kConfigName),
                                      .key = key_in_message(error.what(), path(kConfigName)),
                                      .message = error.what(),
                                      .fix = error.hint()});
    }
  }

  // What PEFT would read as another strength than was meant.
  void adapter_settings(const json& config) {
    for (const auto& [key, value] : config.items()) {
      const std::string nearest = nearest_name(key, known_adapter_keys());
      const bool known = std::find(known_adapter_keys().begin(), known_adapter_keys().end(), key) !=
                         known_adapter_keys().end();
      if (known || nearest.empty() || config.contains(nearest)) continue;
      add("adapter-misspelt-key", kConfigName, key,
          fmt::format("the key {} is unknown; did you mean {}?", quote_text(key),
                      quote_text(nearest)),
          key, nearest);
    }
    for (const char* key : {"r", "lora_alpha"}) {
      if (config.contains(key) && !config.at(key).is_null()) continue;
      add("adapter-default", kConfigName, key, fmt::format("the key {} is absent", key), "absent");
    }
    const auto number = [&](const char* key) {
      return config.contains(key) && config.at(key).is_number() ? config.at(key).get<double>()
                                                                : 8.0;
    };
    const double rank = number("r");
    const double scale = number("lora_alpha") / rank;
    if (rank <= 0.0 || (scale >= 0.01 && scale <= 100.0)) return;
    add("adapter-scale", kConfigName, "lora_alpha",
        fmt::format("lora_alpha is {:g} with r {:g}, usual is 0.01 to 100 times r",
                    number("lora_alpha"), rank),
        fmt::format("{:g}", number("lora_alpha")));
  }

  // `config` with its members, and those of its patterns, in the order of the file: of several
  // patterns the first that matches counts.
  nlohmann::ordered_json in_file_order(const json& config) const {
    const MappedFile file(folder_ / kConfigName);
    nlohmann::ordered_json ordered;
    try_parse_json({reinterpret_cast<const char*>(file.data()), file.size()}, false, ordered);
    nlohmann::ordered_json out = nlohmann::ordered_json::object();
    // out[key] would search the members from the front for every key; all are different.
    auto& members = *out.get_ptr<nlohmann::ordered_json::object_t*>();
    for (const auto& [key, value] : ordered.items()) {
      if (!config.contains(key)) continue;
      members.emplace_back(
          key, key.ends_with("_pattern") ? value : nlohmann::ordered_json(config.at(key)));
    }
    return out;
  }

  void read_weights() {
    if (!there(folder_ / kWeightsName)) {
      for (const char* old : {"adapter_model.bin", "adapter_model.pt"}) {
        if (!there(folder_ / old)) continue;
        add("adapter-pickle", old, "", "the weights are a pickle file, which is not opened here");
        return;
      }
      std::string what = "there is no such file";
      std::error_code code;
      for (fs::directory_iterator it(folder_, code), end; !code && it != end; it.increment(code)) {
        if (there(it->path() / kWeightsName)) what += "; did you mean " + it->path().string() + "?";
      }
      add("adapter-weights-missing", kWeightsName, "", what);
      return;
    }
    file_ = check_shard(folder_ / kWeightsName, findings_);
  }

  void keys() {
    std::vector<const TensorInfo*> unprefixed;
    for (const TensorInfo& tensor : file_->tensors()) {
      const DType dtype = tensor.dtype;
      if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF16) {
        const std::string found(kernels::dtype_name(dtype));
        add_tensor("adapter-dtype", "", tensor, "is " + found, found, "F32, BF16 or F16");
      }
      const AdapterKey key = split_adapter_key(tensor.name);
      switch (key.part) {
        case AdapterPart::kOther:
          add_tensor("full-weight", "", tensor, "is no LoRA tensor");
          continue;
        case AdapterPart::kBaseCopy:
          continue;
        case AdapterPart::kFused:
          fused_ = true;
          add_tensor("fused-keys", "", tensor, "is of all experts of a layer at once");
          continue;
        default:
          break;
      }
      if (key.named) add_tensor("adapter-name-in-key", "", tensor, "holds an adapter's name");
      if (!key.prefixed) unprefixed.push_back(&tensor);
      Parts& parts = modules_[key.module];
      if (key.part == AdapterPart::kA) parts.a = &tensor;
      if (key.part == AdapterPart::kB) parts.b = &tensor;
      if (key.part == AdapterPart::kMagnitude) parts.magnitude = &tensor;
      parts.embedding = parts.embedding || key.embedding;
    }
    if (!unprefixed.empty()) {
      findings_.add("key-prefix",
                    {.file = path(kWeightsName),
                     .tensor = std::string(unprefixed.front()->name),
                     .message = fmt::format("{}: {} of {} keys begin otherwise than with "
                                            "\"base_model.model.model.\" (\"{}\")",
                                            path(kWeightsName), unprefixed.size(),
                                            file_->tensors().size(), unprefixed.front()->name),
                     .found = std::string(unprefixed.front()->name.substr(
                         0, unprefixed.front()->name.find("layers."))),
                     .expected = "base_model.model.model."});
    }
  }

  void pairs() {
    for (const auto& [module, parts] : modules_) {
      if ((parts.a == nullptr) != (parts.b == nullptr)) {
        add_tensor("half-pair", "", *parts.any(),
                   fmt::format("has no {}", parts.a == nullptr ? "lora_A" : "lora_B"));
      }
      if (parts.a == nullptr || parts.b == nullptr || parts.a->shape.size() != 2 ||
          parts.b->shape.size() != 2) {
        continue;
      }
      if (parts.a->shape[0] != parts.b->shape[1]) {
        add_tensor(
            "pair-rank", "", *parts.a,
            fmt::format("has rank {}, its lora_B has {}", parts.a->shape[0], parts.b->shape[1]),
            std::to_string(parts.a->shape[0]), std::to_string(parts.b->shape[1]));
      }
    }
  }

  void against_base() {
    std::map<std::string, ModuleInfo> known;
    for (ModuleInfo& module : list_modules(*base_)) known[module.path] = std::move(module);
    std::size_t unmatched = 0;
    for (const auto& [module, parts] : modules_) unmatched += known.count(module) == 0 ? 1 : 0;
    const bool nothing = unmatched == modules_.size() && unmatched > 0;
    for (const auto& [module, parts] : modules_) {
      const auto at = known.find(module);
      if (at == known.end()) {
        // Of a router there is no ModuleInfo.
        if (module.ends_with(".mlp.gate")) {
          add_tensor("router-target", "", *parts.any(), "adapts the router");
        } else if (!findings_.has("key-prefix")) {
          add_tensor(nothing ? "key-matches-nothing" : "key-unmatched", "", *parts.any(),
                     fmt::format("matches no module of the base; {} of {} modules match nothing",
                                 unmatched, modules_.size()));
        }
        continue;
      }
      shapes(at->second, parts);
    }
    if (lora_ && !nothing) targets(known);
  }

  void shapes(const ModuleInfo& module, const Parts& parts) {
    const auto compare = [&](const TensorInfo* tensor, std::size_t axis, std::int64_t needed) {
      if (tensor == nullptr) return;
      const bool right = tensor->shape.size() == 2 && tensor->shape[axis] == needed;
      if (right) return;
      add_tensor("adapter-shape", "", *tensor,
                 fmt::format("has shape {}, the base's module has {} {}", shape_text(tensor->shape),
                             needed, axis == 1 ? "inputs" : "outputs"),
                 shape_text(tensor->shape),
                 axis == 1 ? fmt::format("[r, {}]", needed) : fmt::format("[{}, r]", needed));
    };
    compare(parts.a, 1, module.in);
    compare(parts.b, 0, module.out);
    if (parts.magnitude != nullptr && parts.magnitude->shape != std::vector{module.out}) {
      add_tensor("adapter-shape", "", *parts.magnitude,
                 fmt::format("has shape {}, the base's module has {} outputs",
                             shape_text(parts.magnitude->shape), module.out),
                 shape_text(parts.magnitude->shape), fmt::format("[{}]", module.out));
    }
  }

  void targets(const std::map<std::string, ModuleInfo>& known) {
    for (const std::int64_t layer : lora_->layers_to_transform) {
      if (layer < base_->num_hidden_layers) continue;
      add("layers-beyond-base", kConfigName, "layers_to_transform",
          fmt::format("layers_to_transform names layer {}, the base has {} layers", layer,
                      base_->num_hidden_layers),
          std::to_string(layer), fmt::format("below {}", base_->num_hidden_layers));
    }
    if (all_linear_) return;
    std::vector<LoraTarget> targets;
    try {
      targets = match_targets(*lora_, *base_, Unmatched::kAllow);
      // The same once more, now for every single name.
      match_targets(*lora_, *base_, Unmatched::kRefuse);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      findings_.add("targets-match-nothing", {.file = path(kConfigName),
                                              .key = "target_modules",
                                              .message = error.what(),
                                              .fix = error.hint()});
    }
    if (targets.empty() || fused_) return;
    std::set<std::string> wanted;
    std::vector<std::string> without;
    for (const LoraTarget& target : targets) {
      wanted.insert(target.module.path);
      if (modules_.count(target.module.path) == 0) without.push_back(target.module.path);
    }
    if (!without.empty()) {
      findings_.add("target-without-weights",
                    {.file = path(kWeightsName),
                     .tensor = without.front(),
                     .message = fmt::format("{}: {} that the config targets have no tensors",
                                            path(kWeightsName), some_names(without, "module"))});
    }
    for (const auto& [module, parts] : modules_) {
      if (wanted.count(module) > 0 || known.count(module) == 0) continue;
      add_tensor("weights-without-target", "", *parts.any(),
                 "is of a module that target_modules does not match");
    }
  }

  // The rank PEFT gives a module: the first pattern that matches, else r.
  void ranks() {
    try {
      PatternValues<std::int64_t> patterns(lora_->rank_pattern, "rank_pattern");
      PatternValues<double> alphas(lora_->alpha_pattern, "alpha_pattern");
      for (const auto& [module, parts] : modules_) {
        const std::string weight = module + ".weight";
        const std::int64_t rank = patterns.find(module, weight).value_or(lora_->r);
        alphas.find(module, weight);
        if (parts.a == nullptr || parts.a->shape.size() != 2 || parts.a->shape[0] == rank) continue;
        add_tensor("adapter-rank", "", *parts.a,
                   fmt::format("has rank {}, r and rank_pattern say {}", parts.a->shape[0], rank),
                   std::to_string(parts.a->shape[0]), std::to_string(rank));
      }
      for (const std::string& key : patterns.unused()) unmatched_pattern("rank_pattern", key);
      for (const std::string& key : alphas.unused()) unmatched_pattern("alpha_pattern", key);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      findings_.add("adapter-value", {.file = path(kConfigName), .message = error.what()});
    }
  }

  void unmatched_pattern(const char* key, const std::string& text) {
    if (fused_ || modules_.empty()) return;
    add("pattern-unmatched", kConfigName, key,
        fmt::format("{} names {}, which matches no adapted module", key, quote_text(text)), text);
  }

  // What other generations of PEFT, and servers, make of it.
  void generations() {
    bool experts = false;
    bool shared = false;
    bool dense = false;
    std::set<std::string> projections;
    std::set<std::int64_t> expert_ranks;
    const TensorInfo* kv_b = nullptr;
    for (const auto& [module, parts] : modules_) {
      if (module.find(".mlp.experts.") != std::string::npos) {
        experts = true;
        projections.insert(module.substr(module.rfind('.') + 1));
        if (parts.a != nullptr && !parts.a->shape.empty()) expert_ranks.insert(parts.a->shape[0]);
      } else if (module.find(".mlp.shared_experts.") != std::string::npos) {
        shared = true;
      } else if (module.find(".mlp.") != std::string::npos && !module.ends_with(".mlp.gate")) {
        dense = true;
      }
      if (kv_b == nullptr && module.ends_with(".kv_b_proj")) kv_b = parts.any();
    }
    if (kv_b != nullptr) {
      findings_.add("absorbed-kv-b",
                    {.file = path(kWeightsName),
                     .tensor = std::string(kv_b->name),
                     .message = fmt::format("{}: kv_b_proj is adapted", path(kWeightsName))});
    }
    const auto note = [&](const char* rule, const char* key, const std::string& what) {
      add(rule, kConfigName, key, what);
    };
    const bool by_leaf = !lora_->target_modules.empty() || !lora_->target_regex.empty();
    const bool named_as_parameters = !lora_->target_parameters.empty();
    if ((shared || dense) && by_leaf && !named_as_parameters) {
      note("mlp-leaf-targets", "target_modules",
           fmt::format("{} MLPs are adapted through target_modules", shared && dense
                                                                         ? "dense and shared"
                                                                     : shared ? "shared"
                                                                              : "dense"));
    }
    const bool down_alone = projections == std::set<std::string>{"down_proj"};
    if (experts && projections.size() != 3 && !down_alone) {
      std::string list;
      for (const std::string& one : projections) list += (list.empty() ? "" : ", ") + one;
      note("some-expert-projections", "target_modules",
           "of the routed experts only " + list + " are adapted");
    }
    if (lora_->use_rslora && experts) {
      note("rslora-experts", "use_rslora", "use_rslora is true, and experts are adapted");
    }
    if (lora_->dropout > 0 && (experts || named_as_parameters)) {
      note("dropout-experts", "lora_dropout",
           fmt::format("lora_dropout is {:g}, and experts or parameters are adapted",
                       lora_->dropout));
    }
    if (lora_->use_dora && (experts || shared || dense)) {
      note("dora-mlp", "use_dora", "use_dora is true, and MLPs are adapted");
    }
    if (expert_ranks.size() > 1 ||
        (expert_ranks.size() == 1 && *expert_ranks.begin() != lora_->r)) {
      note("expert-ranks", "r",
           fmt::format("experts have rank {}, r is {}", *expert_ranks.begin(), lora_->r));
    }
  }

  void values() {
    std::vector<const TensorInfo*> zero;
    std::size_t all = 0;
    for (const TensorInfo& tensor : file_->tensors()) {
      const std::span<const std::byte> bytes(file_->data(tensor),
                                             static_cast<std::size_t>(tensor.bytes()));
      const TensorStats stats = scan(tensor.dtype, bytes);
      file_->file().dont_need(tensor.begin, bytes.size());
      if (stats.bad > 0) {
        add_tensor("adapter-not-finite", "", tensor,
                   fmt::format("has {} values that are not finite, the first at element {}",
                               stats.bad, stats.first_bad));
      }
      const AdapterPart part = split_adapter_key(tensor.name).part;
      if (part == AdapterPart::kA && stats.zero && tensor.begin != tensor.end) {
        add_tensor("zero-lora-a", "", tensor, "is zero everywhere");
      }
      // A tensor without elements has a finding of its own.
      if (part != AdapterPart::kB || tensor.begin == tensor.end) continue;
      ++all;
      if (stats.zero) zero.push_back(&tensor);
    }
    if (zero.empty()) return;
    const bool whole = zero.size() == all;
    findings_.add(whole ? "adapter-untrained" : "partly-untrained",
                  {.file = path(kWeightsName),
                   .tensor = std::string(zero.front()->name),
                   .message = fmt::format("{}: {} of {} lora_B are zero", path(kWeightsName),
                                          zero.size(), all),
                   .found = std::to_string(zero.size())});
  }

  fs::path folder_;
  const ModelConfig* base_;
  bool deep_;
  Findings& findings_;
  std::optional<LoraConfig> lora_;
  std::optional<SafetensorsFile> file_;
  std::map<std::string, Parts> modules_;  // by path in the base model
  bool fused_ = false;
  bool all_linear_ = false;
  Alike alike_;
};

}  // namespace

AdapterSize check_adapter(const fs::path& folder, const ModelConfig* base, bool deep,
                          Findings& findings) {
  return AdapterCheck(folder, base, deep, findings).run();
}

}  // namespace ds::check
