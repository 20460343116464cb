#include "tools/finetune/session.h"

#include <fmt/format.h>

#include <cstdlib>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/system.h"
#include "libcore/cli/environment.h"

namespace ds::finetune {

namespace {

[[noreturn]] void usage(const std::string& message, const std::string& hint) {
  throw Error(ExitCode::kUsage, message, hint);
}

// --rank_pattern / --alpha_pattern: a JSON object of numbers, order kept.
template <class T>
std::vector<std::pair<std::string, T>> parse_pattern(const std::string& flag,
                                                     const std::string& text) {
  std::vector<std::pair<std::string, T>> pattern;
  if (text.empty()) return pattern;
  const auto json = nlohmann::ordered_json::parse(text, nullptr, false);
  if (!json.is_object()) {
    usage(fmt::format("{} is not a JSON object: {}", flag, quote_text(text)),
          fmt::format("write it as {} '{{\"o_proj\": 16}}'", flag));
  }
  for (const auto& [key, value] : json.items()) {
    const bool fits = std::is_integral_v<T> ? value.is_number_integer() : value.is_number();
    if (!fits || value.template get<double>() <= 0.0) {
      usage(fmt::format("{}: the value of '{}' is {}, needed is a positive {}", flag, key,
                        value.dump(), std::is_integral_v<T> ? "whole number" : "number"),
            "");
    }
    pattern.emplace_back(key, value.template get<T>());
  }
  return pattern;
}

double parse_budget(const std::string& text) {
  char* end = nullptr;
  const double value = std::strtod(text.c_str(), &end);
  while (*end == ' ') ++end;
  const bool percent = *end == '%' && end[1] == '\0';
  const double share = percent ? value / 100.0 : value;
  if (end == text.c_str() || (*end != '\0' && !percent) || !(share > 0.0 && share < 1.0)) {
    usage(fmt::format("--trainable_budget {} is not a share of the model", quote_text(text)),
          "write it as --trainable_budget 0.3%");
  }
  return share;
}

void finish(AdapterPlan& plan) {
  plan.by_kind = trainable_by_kind(plan.targets, plan.lora.use_dora);
  plan.trainable = 0;
  for (const auto& [kind, count] : plan.by_kind) plan.trainable += count;
}

}  // namespace

BaseModel find_base(const std::string& model) {
  return open_base_model(model, cli::model_search_paths());
}

DatasetOptions dataset_options(const DataSettings& settings, const std::vector<std::string>& files,
                               ChatTemplate chat_template, const ModelConfig& config) {
  DatasetOptions options;
  for (const std::string& file : files) options.files.emplace_back(file);
  options.chat_template = chat_template;
  options.thinking = settings.thinking;
  options.cutoff_len = settings.cutoff_len;
  options.train_on_prompt = settings.train_on_prompt;
  options.mask_history = settings.mask_history;
  options.vocab_size = config.vocab_size;
  const std::map<std::string, Truncation> truncations{{"proportional", Truncation::kProportional},
                                                      {"left", Truncation::kLeft},
                                                      {"right", Truncation::kRight},
                                                      {"skip", Truncation::kSkip},
                                                      {"error", Truncation::kError}};
  options.truncation = truncations.at(settings.truncation);
  const std::map<std::string, EncodingPolicy> encodings{{"replace", EncodingPolicy::kReplace},
                                                        {"error", EncodingPolicy::kError},
                                                        {"skip", EncodingPolicy::kSkip}};
  options.encoding = encodings.at(settings.encoding);
  return options;
}

AdapterPlan plan_adapter(const AdapterSettings& settings, const BaseModel& base) {
  AdapterPlan plan;
  plan.full = settings.peft_method == "full";
  plan.lora_plus = settings.peft_method == "lora_plus";
  if (plan.full) {
    const ParameterCounts counts = count_parameters(base.config);
    plan.trainable = counts.total();
    plan.by_kind = {{"embedding", counts.embedding},
                    {"head", counts.head},
                    {"attention", counts.attention},
                    {"mlp", counts.mlp},
                    {"shared_experts", counts.shared_experts},
                    {"experts", counts.experts},
                    {"router", counts.router},
                    {"norms", counts.norms}};
    return plan;
  }
  LoraConfig& lora = plan.lora;
  lora.r = settings.r;
  lora.alpha = settings.alpha;
  lora.dropout = settings.dropout;
  lora.use_rslora = settings.use_rslora;
  lora.use_dora = settings.use_dora;
  lora.init = settings.init;
  lora.layers_to_transform = settings.layers_to_transform;
  lora.rank_pattern = parse_pattern<std::int64_t>("--rank_pattern", settings.rank_pattern);
  lora.alpha_pattern = parse_pattern<double>("--alpha_pattern", settings.alpha_pattern);
  lora.base_model_name_or_path = base.name;
  set_targets(lora, settings.target, base.config);
  if (!settings.trainable_budget.empty()) {
    const double share = parse_budget(settings.trainable_budget);
    lora.r = rank_for_budget(lora, base.config, share);
    if (lora.r == 0) {
      usage(fmt::format(
                "--trainable_budget {}: even rank 1 on {} trains a larger share of this model",
                settings.trainable_budget, settings.target),
            "raise the budget or name fewer --lora_target modules");
    }
  }
  plan.targets = match_targets(lora, base.config);
  if (lora.use_dora && lora.dropout > 0.0) {
    usage("--use_dora with --lora_dropout above 0 is not supported", "set --lora_dropout 0");
  }
  finish(plan);
  return plan;
}

AdapterPlan plan_adapter_folder(const std::filesystem::path& folder, const ModelConfig& config) {
  AdapterPlan plan;
  plan.lora = load_lora_config(folder);
  // PEFT wrote what matched; names that match nothing here are no mistake of this run.
  plan.targets = match_targets(plan.lora, config, Unmatched::kAllow);
  finish(plan);
  return plan;
}

std::string describe(const AdapterSettings& settings, const AdapterPlan& plan) {
  if (plan.full) return "all parameters";
  std::string text = plan.lora_plus ? "LoRA+" : "LoRA";
  text += fmt::format(" r {}, alpha {:g}", plan.lora.r, plan.lora.alpha);
  if (plan.lora.use_rslora) text += ", rank-stabilised";
  if (plan.lora.use_dora) text += ", DoRA";
  if (plan.lora_plus) text += fmt::format(", ratio {:g}", settings.loraplus_lr_ratio);
  if (plan.lora.dropout > 0.0) text += fmt::format(", dropout {:g}", plan.lora.dropout);
  text += ", targets " + settings.target;
  return text;
}

DType compute_dtype(const std::string& spelling) {
  return spelling == "bf16" ? DType::kBF16 : DType::kF32;
}

std::unique_ptr<DeepSeekModel> load_for_inference(const BaseModel& base,
                                                  const ModelSettings& settings,
                                                  std::int64_t max_positions) {
  return load_with_adapter(base, settings.adapter, compute_dtype(settings.dtype), max_positions);
}

std::int64_t allowed_memory(const std::string& memory_limit) {
  const auto available = static_cast<std::int64_t>(memory_info().available);
  if (memory_limit.empty()) return available;
  const auto limit = parse_size(memory_limit);
  if (!limit || *limit == 0) {
    usage(fmt::format("--memory_limit {} is no size", quote_text(memory_limit)),
          "write it as --memory_limit 8GiB");
  }
  return std::min(available, static_cast<std::int64_t>(*limit));
}

}  // namespace ds::finetune
