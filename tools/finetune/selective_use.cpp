#include "tools/finetune/selective_use.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"

namespace ds::finetune {

std::optional<SelectionSettings> selection_settings(const MemorySettings& memory) {
  if (!memory.selective_threshold) {
    if (memory.selective_refresh || memory.selective_decay) {
      throw Error(ExitCode::kUsage,
                  fmt::format("--selective_computation_{} is given without "
                              "--selective_computation_threshold, which turns selection on",
                              memory.selective_refresh ? "refresh" : "decay"),
                  "give a threshold such as 0.7, or leave it out");
    }
    return std::nullopt;
  }
  SelectionSettings settings{.threshold = *memory.selective_threshold};
  if (memory.selective_refresh) settings.refresh = *memory.selective_refresh;
  if (memory.selective_decay) settings.decay = *memory.selective_decay;
  return settings;
}

SelectionPlan plan_selection(const SelectionSettings& settings, const AdapterPlan& adapter,
                             std::int64_t steps) {
  if (adapter.full) {
    throw Error(ExitCode::kUsage,
                "--selective_computation_threshold chooses among the adapters of layers; "
                "--peft_method full has none",
                "leave one of them out");
  }
  std::set<std::int64_t> layers;
  for (const LoraTarget& target : adapter.targets) {
    if (target.module.layer >= 0) layers.insert(target.module.layer);
  }
  SelectionPlan plan{.settings = settings, .layers = static_cast<std::int64_t>(layers.size())};
  check_selection(settings, plan.layers);
  plan.computed = selected_layers(settings.threshold, plan.layers);
  if (steps > 0) {
    const std::int64_t refreshes = refreshing_updates(settings, steps);
    plan.computed_share =
        static_cast<double>(refreshes * plan.layers + (steps - refreshes) * plan.computed) /
        static_cast<double>(steps * plan.layers);
  }
  return plan;
}

std::string SelectionPlan::text() const {
  return fmt::format(
      "adapters of {} of {} layers an update, of all in one of {}: {:.0f} % of them over the run; "
      "the memory above is what an update with all layers needs",
      computed, layers, settings.refresh, 100.0 * computed_share);
}

nlohmann::json SelectionPlan::json() const {
  return {{"threshold", settings.threshold}, {"refresh", settings.refresh},
          {"decay", settings.decay},         {"layers", layers},
          {"computed_layers", computed},     {"computed_share", computed_share}};
}

void SelectiveUse::add(const LayerSelection& selection, std::size_t activation_bytes,
                       double seconds) {
  Sums& sums = selection.refreshing() ? refresh_ : selective_;
  ++sums.steps;
  sums.seconds += seconds;
  sums.activation_bytes = std::max(sums.activation_bytes, activation_bytes);
  const auto computed = static_cast<std::int64_t>(selection.computed().size());
  computed_ += computed;
  layers_ += computed + static_cast<std::int64_t>(selection.skipped().size());
}

double SelectiveUse::computed_share() const {
  return layers_ > 0 ? static_cast<double>(computed_) / static_cast<double>(layers_) : 1.0;
}

std::string SelectiveUse::text() const {
  if (layers_ == 0) return "";
  return fmt::format(
      "selective computation: adapters of {:.0f} % of the layers trained; {} a step and {} of "
      "activations, {} and {} in the {} steps that refreshed all layers\n",
      100.0 * computed_share(), format_duration(selective_.mean_seconds()),
      format_bytes(selective_.activation_bytes), format_duration(refresh_.mean_seconds()),
      format_bytes(refresh_.activation_bytes), refresh_.steps);
}

nlohmann::json SelectiveUse::json() const {
  const auto object = [](const Sums& sums) -> nlohmann::json {
    return {{"steps", sums.steps},
            {"seconds", sums.mean_seconds()},
            {"activation_bytes", sums.activation_bytes}};
  };
  return {{"computed_share", computed_share()},
          {"refresh", object(refresh_)},
          {"selective", object(selective_)}};
}

}  // namespace ds::finetune
