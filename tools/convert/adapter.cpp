#include "tools/convert/adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/cli/environment.h"
#include "tools/convert/adapter_modules.h"
#include "tools/convert/adapter_plan.h"

namespace ds::convert {

namespace {

// The base model's folder: --model, or what the adapter names if that is here; empty otherwise.
std::filesystem::path model_folder(const AdapterSettings& settings, const LoraConfig& lora) {
  if (!settings.model.empty()) return find_model(settings.model, cli::model_search_paths());
  if (lora.base_model_name_or_path.empty()) return {};
  try {
    return find_model(lora.base_model_name_or_path, cli::model_search_paths());
  } catch (const Error&) {
    return {};
  }
}

// Whether the adapter's own settings name modules by something else than names that mean the same
// in every layer.
bool is_partial(const LoraConfig& lora) {
  if (!lora.layers_to_transform.empty() || !lora.target_regex.empty() ||
      !lora.exclude_modules.empty() || !lora.exclude_regex.empty()) {
    return true;
  }
  for (const auto* names : {&lora.target_modules, &lora.target_parameters}) {
    for (const std::string& name : *names) {
      // Dense MLPs are named by their layers, of which there are a few.
      const bool dense = name.starts_with("layers.") && name.find(".mlp.") != std::string::npos &&
                         name.find("experts") == std::string::npos;
      if (!dense && name.find("layers.") != std::string::npos) return true;
    }
  }
  return false;
}

// The modules with one more layer of everything: none of a partial adapter's names then covers all
// that it could, and every module is named by its whole path.
std::vector<ModuleInfo> with_one_more_layer(std::vector<ModuleInfo> modules) {
  std::int64_t last = -1;
  for (const ModuleInfo& module : modules) last = std::max(last, module.layer);
  const std::size_t known = modules.size();
  for (std::size_t i = 0; i < known; ++i) {
    ModuleInfo module = modules[i];
    if (module.layer < 0) continue;
    const std::string own = fmt::format("layers.{}.", module.layer);
    module.path.replace(module.path.find(own), own.size(), fmt::format("layers.{}.", last + 1));
    module.layer = last + 1;
    modules.push_back(module);
  }
  return modules;
}

}  // namespace

void run_adapter(const AdapterSettings& settings, cli::Run& run) {
  const std::filesystem::path folder = settings.input;
  const LoraConfig lora = load_lora_config(folder, WholeModules::kAllow);
  const std::filesystem::path base = model_folder(settings, lora);
  const bool known = !base.empty();
  const ModelConfig config = known ? load_model_config(base) : ModelConfig{};
  std::vector<ModuleInfo> modules =
      known ? list_modules(config) : modules_of_file(open_adapter_file(folder), lora);
  const auto adapter = open_adapter_folder(folder, modules);
  if (!known) {
    if (is_partial(lora)) modules = with_one_more_layer(std::move(modules));
    run.info("the base model is not here: the modules are those of the file (--model names it)");
  }
  if (!known && settings.to == "gguf_lora") {
    throw Error(ExitCode::kUsage, "--to gguf_lora needs --model: heads and experts of the base",
                "its config.json is enough");
  }
  const OutputPlan plan = settings.to == "peft" ? plan_peft(*adapter, modules, run)
                          : settings.to == "peft_fused"
                              ? plan_peft_fused(*adapter, modules, run)
                              : plan_gguf_lora(*adapter, config, settings.out.output, run);
  write_output(settings.out, plan, run, [&](nlohmann::json& json, const Tally&) {
    json["modules"] = adapter->updates.size();
  });
}

}  // namespace ds::convert
