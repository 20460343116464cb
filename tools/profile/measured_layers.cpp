#include "tools/profile/measured_layers.h"

#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <numeric>

namespace ds::profile {

namespace {

std::int64_t disk_read_bytes() {
  std::ifstream io("/proc/self/io");
  std::string name;
  std::int64_t value = 0;
  while (io >> name >> value) {
    if (name == "read_bytes:") return value;
  }
  return 0;
}

}  // namespace

ProcessUse process_use() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return {.minor_faults = usage.ru_minflt,
          .major_faults = usage.ru_majflt,
          .voluntary_switches = usage.ru_nvcsw,
          .involuntary_switches = usage.ru_nivcsw,
          .cpu_seconds = seconds(usage.ru_utime) + seconds(usage.ru_stime),
          .disk_read_bytes = disk_read_bytes()};
}

ProcessUse operator-(const ProcessUse& later, const ProcessUse& earlier) {
  return {.minor_faults = later.minor_faults - earlier.minor_faults,
          .major_faults = later.major_faults - earlier.major_faults,
          .voluntary_switches = later.voluntary_switches - earlier.voluntary_switches,
          .involuntary_switches = later.involuntary_switches - earlier.involuntary_switches,
          .cpu_seconds = later.cpu_seconds - earlier.cpu_seconds,
          .disk_read_bytes = later.disk_read_bytes - earlier.disk_read_bytes};
}

double Measurement::total_seconds() const {
  return std::accumulate(seconds.begin(), seconds.end(), 0.0);
}

std::vector<MeasuredRow> measured_rows(const Measurement& measured, const CostTable& costs,
                                       std::int64_t trainable) {
  const auto steps = static_cast<double>(measured.seconds.size());
  const double wall = measured.total_seconds() / steps;
  std::vector<MeasuredRow> rows;
  for (const CostRow& cost : costs.rows) {
    rows.push_back({.name = cost.name,
                    .kind = cost.kind,
                    .parameters = cost.parameters + cost.adapter_parameters});
  }
  // The optimizer owns no weights: its row says how many it updates.
  rows.push_back({.name = "optimizer", .kind = "optimizer", .parameters = trainable});
  rows.push_back({.name = "other", .kind = "other"});
  double in_parts = 0.0;
  for (MeasuredRow& row : rows) {
    const auto found = measured.profile.parts().find(row.name);
    if (found != measured.profile.parts().end()) {
      for (const auto& [phase, sums] : found->second.phases) {
        row.bytes += sums.bytes / steps;
        row.seconds += sums.seconds / steps;
        if (phase == "forward") row.forward_flops += sums.flops / steps;
        if (phase == "recompute") {
          row.recompute_flops += sums.flops / steps;
          row.recompute_seconds += sums.seconds / steps;
        }
        if (phase != "backward") continue;
        row.weight_gradient_flops += sums.weight_gradient_flops / steps;
        row.input_gradient_flops += (sums.flops - sums.weight_gradient_flops) / steps;
      }
    }
    if (row.name == "other") {
      row.seconds = std::max(wall - in_parts, 0.0);
    } else {
      in_parts += row.seconds;
    }
    row.share = row.seconds / wall;
    row.rating = rate(row.all_flops(), row.bytes, row.seconds, measured.peaks);
  }
  return rows;
}

}  // namespace ds::profile
