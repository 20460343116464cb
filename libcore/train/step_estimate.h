// How long an update will take, before anything is loaded.
#pragma once

#include <cstdint>
#include <string>

#include "libcore/config/model_config.h"
#include "libcore/tensor/device.h"
#include "libcore/train/memory_plan.h"

namespace ds {

struct StepEstimate {
  double flops = 0.0;  // of an update, recomputation included
  double rate = 0.0;   // FLOP/s of this machine at the model's own most frequent product
  double arithmetic_seconds = 0.0;
  std::int64_t disk_bytes =
      0;                   // an update reads at most this from disk; 0: the base stays in memory
  double disk_rate = 0.0;  // bytes/s, read past the kernel's cache; 0: could not be measured
  double disk_seconds = 0.0;
  // Reading hides behind arithmetic, so the longer one counts.
  double seconds() const {
    return disk_seconds > arithmetic_seconds ? disk_seconds : arithmetic_seconds;
  }
  // "arithmetic" or "disk".
  std::string binding() const { return disk_seconds > arithmetic_seconds ? "disk" : "arithmetic"; }
};

// Measures the machine for some hundredths of a second. The FLOPs are those of the products and of
// attention; what an adapter of usual rank adds is within the error of the estimate.
StepEstimate estimate_step(const ModelConfig& config, const MemoryRequest& request,
                           const MemoryPlan& plan, const BaseSize& base,
                           const Checkpoint& checkpoint, Device& device);

}  // namespace ds
