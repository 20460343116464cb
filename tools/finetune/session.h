// What the subcommands share: finding the model, its tokenizer and template, attaching an adapter.
#pragma once

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "libcore/config/lora_config.h"
#include "libcore/data/dataset.h"
#include "libcore/eval/base_model.h"
#include "tools/finetune/settings.h"

namespace ds::finetune {

// open_base_model with the environment's search paths.
BaseModel find_base(const std::string& model);

DatasetOptions dataset_options(const DataSettings& settings, const std::vector<std::string>& files,
                               ChatTemplate chat_template, const ModelConfig& config);

// The LoRA settings of the command line for this model, with --trainable_budget resolved.
struct AdapterPlan {
  LoraConfig lora;
  std::vector<LoraTarget> targets;
  bool full = false;  // --peft_method full
  bool lora_plus = false;
  std::int64_t trainable = 0;
  std::map<std::string, std::int64_t> by_kind;
};
AdapterPlan plan_adapter(const AdapterSettings& settings, const BaseModel& base);
// The same from an adapter folder (--adapter).
AdapterPlan plan_adapter_folder(const std::filesystem::path& folder, const ModelConfig& config);

// "LoRA+ r 8, alpha 16, ratio 16, all linear layers".
std::string describe(const AdapterSettings& settings, const AdapterPlan& plan);

DType compute_dtype(const std::string& spelling);

// Loads base and adapter for evaluation or generation.
std::unique_ptr<DeepSeekModel> load_for_inference(const BaseModel& base,
                                                  const ModelSettings& settings,
                                                  std::int64_t max_positions);

// Memory this run may use: --memory_limit, else what is available.
std::int64_t allowed_memory(const std::string& memory_limit);

}  // namespace ds::finetune
