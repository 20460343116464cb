// Bytes as config.json, as adapter_config.json and as a YAML file of settings.
#include <CLI/CLI.hpp>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <nlohmann/json.hpp>
#include <string>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/cli/settings_source.h"
#include "libcore/config/lora_config.h"
#include "libcore/config/model_config.h"
#include "tests/support/variants.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

// An accepted model has sizes that can be counted and finite rotary tables.
void read_model(const std::string& text) {
  try {
    const ds::ModelConfig config =
        ds::parse_model_config(ds::parse_json_text(text, "fuzz"), "fuzz");
    require(ds::activated_parameters(config) > 0);
    require(ds::count_parameters(config).total() >= ds::activated_parameters(config));
    const ds::RopeSettings rope = ds::rope_settings(config);
    require(rope.softmax_scale > 0);
    for (const float frequency : rope.inv_freq) require(std::isfinite(frequency));
  } catch (const ds::Error& error) {
    require(error.code() == ds::ExitCode::kBadInput);
  }
}

// An accepted adapter that fits the model is written so that the same modules come back.
void read_adapter(const std::string& text) {
  static const ds::ModelConfig model =
      ds::parse_model_config(ds::test::tiny_v3_json(), "config.json");
  try {
    const ds::LoraConfig lora = ds::parse_lora_config(text, "fuzz");
    const auto targets = ds::match_targets(lora, model, ds::Unmatched::kAllow);
    const std::string written = ds::adapter_config_text(lora, targets, model);
    const auto again = ds::match_targets(ds::parse_lora_config(written, "again"), model);
    require(again.size() == targets.size());
    for (std::size_t i = 0; i < targets.size(); ++i) {
      require(again[i].module.path == targets[i].module.path);
    }
  } catch (const ds::Error& error) {
    require(error.code() == ds::ExitCode::kBadInput);
  }
}

void read_settings(const std::string& text) {
  CLI::App app;
  std::string value;
  bool packing = false;
  for (const char* name : {"--learning_rate", "--rank_pattern", "--activation_checkpointing",
                           "--selective_computation_threshold"}) {
    app.add_option(name, value);
  }
  app.add_flag("--packing", packing);
  try {
    ds::cli::GivenSettings settings;
    ds::cli::read_config_text(text, "fuzz", "deepseek-finetune", app, settings);
    for (const auto& [name, given] : settings) {
      require(app.get_option_no_throw("--" + name) != nullptr && given.source == "file");
    }
  } catch (const ds::Error& error) {
    require(error.code() == ds::ExitCode::kBadInput || error.code() == ds::ExitCode::kUsage);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string text(reinterpret_cast<const char*>(data), size);
  read_model(text);
  read_adapter(text);
  read_settings(text);
  return 0;
}
