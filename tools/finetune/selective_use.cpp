#include "tools/finetune/selective_use.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libcore/base/format.h"

namespace ds::finetune {

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
