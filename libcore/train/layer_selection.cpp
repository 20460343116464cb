#include "libcore/train/layer_selection.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>
#include <string_view>

#include "libcore/base/error.h"

namespace ds {

namespace {

// "model.layers.7.self_attn..." is in layer 7; -1: in none.
std::int64_t layer_of(std::string_view name) {
  constexpr std::string_view kPrefix = "model.layers.";
  std::int64_t layer = -1;
  if (name.starts_with(kPrefix)) {
    name.remove_prefix(kPrefix.size());
    std::from_chars(name.data(), name.data() + name.size(), layer);
  }
  return layer;
}

}  // namespace

void check_selection(const SelectionSettings& settings, std::int64_t layers) {
  if (!(settings.threshold > 0.0 && settings.threshold < 1.0)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--selective_computation_threshold {} is not between 0 and 1",
                            settings.threshold),
                "0.7 computes the most important three tenths of the layers");
  }
  if (settings.refresh < 1) {
    throw Error(ExitCode::kUsage,
                fmt::format("--selective_computation_refresh {} is below 1", settings.refresh),
                "10 computes and measures all layers in every tenth update");
  }
  if (!(settings.decay >= 0.0 && settings.decay < 1.0)) {
    throw Error(ExitCode::kUsage,
                fmt::format("--selective_computation_decay {} is not in [0, 1)", settings.decay),
                "0.9 weighs a new measurement with one tenth");
  }
  if (layers < 2) {
    throw Error(ExitCode::kUsage,
                fmt::format("--selective_computation_threshold chooses between layers, but {} of "
                            "the model has trained parameters",
                            layers == 0 ? "none" : "only one"),
                "leave it out, or train more layers");
  }
}

std::int64_t selected_layers(double threshold, std::int64_t candidates) {
  // 0.7 * 10 must not fall below 7 by rounding.
  const double left_out = std::floor(threshold * static_cast<double>(candidates) + 1e-9);
  return std::max<std::int64_t>(candidates - static_cast<std::int64_t>(left_out), 1);
}

std::int64_t refreshing_updates(const SelectionSettings& settings, std::int64_t steps) {
  return steps > 0 ? (steps - 1) / settings.refresh + 1 : 0;
}

LayerSelection::LayerSelection(SelectionSettings settings,
                               const std::vector<Parameter*>& parameters)
    : settings_(settings), parameters_(parameters) {
  std::set<std::int64_t> layers;
  for (const Parameter* parameter : parameters_) {
    layer_of_.push_back(layer_of(parameter->name));
    if (layer_of_.back() >= 0) layers.insert(layer_of_.back());
  }
  check_selection(settings, static_cast<std::int64_t>(layers.size()));
  importance_.assign(static_cast<std::size_t>(*layers.rbegin() + 1), -1.0);
}

LayerSelection::~LayerSelection() {
  for (Parameter* parameter : parameters_) parameter->skipped = false;
}

void LayerSelection::choose() {
  const auto importance = [this](std::int64_t layer) {
    const double value = importance_[static_cast<std::size_t>(layer)];
    return value < 0.0 ? HUGE_VAL : value;
  };
  std::sort(computed_.begin(), computed_.end(), [&](std::int64_t a, std::int64_t b) {
    return importance(a) != importance(b) ? importance(a) > importance(b) : a < b;
  });
  auto count = static_cast<std::size_t>(
      selected_layers(settings_.threshold, static_cast<std::int64_t>(computed_.size())));
  while (count < computed_.size() && std::isinf(importance(computed_[count]))) ++count;
  skipped_.assign(computed_.begin() + static_cast<std::ptrdiff_t>(count), computed_.end());
  computed_.resize(count);
  std::sort(computed_.begin(), computed_.end());
  std::sort(skipped_.begin(), skipped_.end());
}

void LayerSelection::begin(std::int64_t step) {
  computed_.clear();
  skipped_.clear();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    if (layer_of_[i] >= 0 && parameters_[i]->trainable) computed_.push_back(layer_of_[i]);
  }
  std::sort(computed_.begin(), computed_.end());
  computed_.erase(std::unique(computed_.begin(), computed_.end()), computed_.end());
  refreshing_ = step % settings_.refresh == 0;
  if (!refreshing_ && !computed_.empty()) choose();
  for (std::size_t i = 0; i < parameters_.size(); ++i) {
    parameters_[i]->skipped = std::binary_search(skipped_.begin(), skipped_.end(), layer_of_[i]);
  }
}

void LayerSelection::measure(std::span<const double> squared_norms) {
  if (!refreshing_) return;
  squares_.assign(importance_.size(), 0.0);
  for (std::size_t i = 0; i < squared_norms.size(); ++i) {
    if (layer_of_[i] >= 0) squares_[static_cast<std::size_t>(layer_of_[i])] += squared_norms[i];
  }
  double total = 0.0;
  for (const std::int64_t layer : computed_) {
    total += std::sqrt(squares_[static_cast<std::size_t>(layer)]);
  }
  if (!(total > 0.0)) return;
  for (const std::int64_t layer : computed_) {
    const auto l = static_cast<std::size_t>(layer);
    const double share = std::sqrt(squares_[l]) / total;
    importance_[l] = importance_[l] < 0.0
                         ? share
                         : settings_.decay * importance_[l] + (1.0 - settings_.decay) * share;
  }
}

void LayerSelection::set_importance(const std::vector<double>& importance) {
  if (importance.size() != importance_.size()) {
    throw Error(ExitCode::kBadInput,
                fmt::format("the checkpoint has the importance of {} layers, this run has {}",
                            importance.size(), importance_.size()),
                "resume with the settings of the first run");
  }
  importance_ = importance;
}

}  // namespace ds
