// What selective computation saved in a run.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>

#include "libcore/train/layer_selection.h"

namespace ds::finetune {

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
