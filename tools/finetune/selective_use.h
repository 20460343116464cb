// Selective computation: what a run asks for, what it will do, and what it saved.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "libcore/train/layer_selection.h"
#include "tools/finetune/session.h"
#include "tools/finetune/settings.h"

namespace ds::finetune {

// The settings of the command line; none without a threshold. Throws Error(kUsage) for what only a
// threshold gives a meaning to.
std::optional<SelectionSettings> selection_settings(const MemorySettings& memory);
// What selection will do to this adapter in `steps` updates. Throws Error(kUsage) for settings out
// of range, --peft_method full, and an adapter on fewer than two layers.
struct SelectionPlan {
  SelectionSettings settings;
  std::int64_t layers = 0;      // with an adapter
  std::int64_t computed = 0;    // of them between refreshes, once all were measured
  double computed_share = 1.0;  // expected over the run
  std::string text() const;     // one line, without its label
  nlohmann::json json() const;
};
SelectionPlan plan_selection(const SelectionSettings& settings, const AdapterPlan& adapter,
                             std::int64_t steps);

// Sums over this process' updates, those that refreshed (all layers) and the others apart.
class SelectiveUse {
 public:
  void add(const LayerSelection& selection, std::size_t activation_bytes, double seconds);
  // One line for people; empty when there was no update.
  std::string text() const;
  // {computed_share, refresh: {steps, seconds, activation_bytes}, selective: {...}}: mean seconds
  // of a step, largest activation_bytes.
  nlohmann::json json() const;

 private:
  struct Sums {
    std::int64_t steps = 0;
    double seconds = 0.0;
    std::size_t activation_bytes = 0;
    double mean_seconds() const { return steps > 0 ? seconds / static_cast<double>(steps) : 0.0; }
  };
  double computed_share() const;
  Sums refresh_;
  Sums selective_;
  std::int64_t computed_ = 0;  // layers, over all updates
  std::int64_t layers_ = 0;
};

}  // namespace ds::finetune
