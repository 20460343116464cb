// Memory by name over one step.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "tools/profile/recorder.h"
#include "tools/profile/workload.h"

namespace ds::profile {

// What was live at one moment. `parts`: "base" (mapped from disk, not in `bytes`), "adapters",
// "gradients", "optimizer", "kv_cache", "activations", "workspace", "kernel_scratch".
struct LiveMemory {
  double seconds = 0.0;  // since the step began
  std::int64_t bytes = 0;
  std::map<std::string, std::int64_t> parts;
  std::map<std::string, std::size_t> activations;  // by name
  std::map<std::string, std::size_t> workspace;
};

// A part of the model in one phase, from its first to its last moment.
struct MemorySpan {
  std::string name;
  std::string phase;
  LiveMemory begin;
  LiveMemory end;
  std::int64_t peak_bytes = 0;  // the largest LiveMemory::bytes between the two
};

struct MemoryTimeline {
  double seconds = 0.0;  // of the step
  std::vector<MemorySpan> spans;
  LiveMemory peak;
  std::string peak_name, peak_phase, peak_op;  // empty: between two spans; outside every op
};

// The last recorded step; `before` and `after` are what is held beside arenas around it.
MemoryTimeline make_timeline(const Recorder& recorder, const MemoryUse& before,
                             const MemoryUse& after);
// The peak, then a line a span; of long runs of one phase the ends and the largest.
std::string timeline_text(const MemoryTimeline& timeline);
nlohmann::json timeline_json(const MemoryTimeline& timeline);

}  // namespace ds::profile
