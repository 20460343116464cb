// The layer breakdown of steps that really ran.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tools/profile/allocations.h"
#include "tools/profile/cost_model.h"
#include "tools/profile/memory_timeline.h"
#include "tools/profile/op_profile.h"
#include "tools/profile/roofline.h"
#include "tools/profile/workload.h"

namespace ds::profile {

// What the process used during the measured steps.
struct ProcessUse {
  std::int64_t minor_faults = 0, major_faults = 0;
  std::int64_t voluntary_switches = 0, involuntary_switches = 0;
  double cpu_seconds = 0.0;
  std::int64_t disk_read_bytes = 0;  // that came from a disk; 0 where the kernel does not say
};
ProcessUse process_use();  // since the start of the process
ProcessUse operator-(const ProcessUse& later, const ProcessUse& earlier);

// Everything measured; sums are over `seconds.size()` steps.
struct Measurement {
  std::vector<double> seconds;  // wall time of each step
  std::int64_t tokens = 0;      // of one step
  bool decode = false;          // the rows have formulas beside
  int threads = 1;
  OpProfile profile;
  MachinePeaks peaks;
  MemoryUse memory;
  MemoryTimeline timeline;
  std::uint64_t peak_rss = 0;
  ProcessUse use;
  AllocationCounts allocations;  // inside the steps, without what measuring takes
  double total_seconds() const;
};

// One row a part of the model, means over the steps. Their seconds sum to the wall time of a step:
// "other" holds what ran outside every part and the time between ops.
struct MeasuredRow {
  std::string name;
  std::string kind;
  std::int64_t parameters = 0;
  double forward_flops = 0.0;
  double input_gradient_flops = 0.0;
  double weight_gradient_flops = 0.0;
  double recompute_flops = 0.0;
  double recompute_seconds = 0.0;  // of `seconds`
  double bytes = 0.0;
  double seconds = 0.0;
  double share = 0.0;
  // Of a decode step, by the cost model.
  double formula_flops = 0.0;
  double formula_bytes = 0.0;
  Rating rating;
  double all_flops() const {
    return forward_flops + input_gradient_flops + weight_gradient_flops + recompute_flops;
  }
};
std::vector<MeasuredRow> measured_rows(const Measurement& measured, const CostTable& costs,
                                       std::int64_t trainable);

// But for the peaks of the machine, which peaks_text() and peaks_json() tell.
std::string measured_text(const Measurement& measured, const std::vector<MeasuredRow>& rows);
// Kinds of ops by falling time.
nlohmann::json ops_json(const Measurement& measured);
nlohmann::json measured_json(const Measurement& measured, const std::vector<MeasuredRow>& rows);

}  // namespace ds::profile
