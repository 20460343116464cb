// Selective computation: which layers' adapters are trained in an update.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "libcore/nn/parameter.h"

namespace ds {

struct SelectionSettings {
  double threshold = 0.0;     // quantile of the layers' importance, in (0, 1)
  std::int64_t refresh = 10;  // every how many updates all layers are computed and measured
  double decay = 0.9;         // of the mean importance, in [0, 1)
};

// Throws Error(kUsage) for settings out of range and for fewer than two layers to choose from.
void check_selection(const SelectionSettings& settings, std::int64_t layers);
// Layers computed of `candidates` (>= 1) that were all measured, in an update that does not
// refresh: L - floor(threshold * L), at least one.
std::int64_t selected_layers(double threshold, std::int64_t candidates);
// Updates that refresh among the first `steps`.
std::int64_t refreshing_updates(const SelectionSettings& settings, std::int64_t steps);

// Importance of a layer: its adapters' share of the gradient norm (its L2 norm over the sum of all
// layers' L2 norms, before clipping), an exponential mean over refresh updates. Of L candidate
// layers, those with a trainable parameter, the L - floor(threshold * L) most important ones are
// computed, at least one; equal ones by lower index. A layer that was never measured is computed.
// The other layers' adapters take no gradient and keep their values, moments and counts; the
// gradient passes through them exactly. Parameters outside the layers are never left out.
class LayerSelection {
 public:
  // The parameters must outlive the selection. Throws as check_selection does.
  LayerSelection(SelectionSettings settings, const std::vector<Parameter*>& parameters);
  ~LayerSelection();
  LayerSelection(const LayerSelection&) = delete;
  LayerSelection& operator=(const LayerSelection&) = delete;

  // Marks the parameters that the update after `step` finished ones leaves out.
  void begin(std::int64_t step);
  // After that update: takes the squared gradient norms of all parameters (StepReport) into the
  // means, if all layers were computed.
  void measure(std::span<const double> squared_norms);

  bool refreshing() const { return refreshing_; }
  const std::vector<std::int64_t>& computed() const { return computed_; }  // layers, ascending
  const std::vector<std::int64_t>& skipped() const { return skipped_; }

  // One entry a layer of the model; below 0: never measured. For checkpoints.
  const std::vector<double>& importance() const { return importance_; }
  void set_importance(const std::vector<double>& importance);

 private:
  // Leaves those of computed_, which ascend, that are computed.
  void choose();

  SelectionSettings settings_;
  const std::vector<Parameter*>& parameters_;
  std::vector<std::int64_t> layer_of_;  // of every parameter; -1: outside
  std::vector<double> importance_;
  std::vector<std::int64_t> computed_;
  std::vector<std::int64_t> skipped_;
  std::vector<double> squares_;  // of the layers; kept for its memory
  bool refreshing_ = false;
};

}  // namespace ds
