#include "tools/profile/measured_layers.h"

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <numeric>

#include "libcore/base/format.h"
#include "tools/profile/allocations.h"

namespace ds::profile {

namespace {

using nlohmann::json;

template <class T>
json optional_json(const std::optional<T>& value) {
  return value ? json(*value) : json(nullptr);
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const std::size_t n = values.size();
  return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

double busy_share(const Measurement& m) {
  return m.use.cpu_seconds / (m.total_seconds() * m.threads);
}

// Kinds of ops by falling time.
std::vector<std::pair<std::string, OpSums>> sorted_ops(const OpProfile& profile) {
  std::vector<std::pair<std::string, OpSums>> ops(profile.ops().begin(), profile.ops().end());
  std::stable_sort(ops.begin(), ops.end(), [](const auto& a, const auto& b) {
    return a.second.seconds > b.second.seconds;
  });
  return ops;
}

std::vector<std::pair<std::string, std::size_t>> largest(
    const std::map<std::string, std::size_t>& by_name) {
  std::vector<std::pair<std::string, std::size_t>> parts(by_name.begin(), by_name.end());
  std::stable_sort(parts.begin(), parts.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  return parts;
}

std::string memory_text(const Measurement& m) {
  const auto line = [](const std::string& name, std::int64_t bytes) {
    return fmt::format("  {:<28} {:>12}\n", name, format_bytes(static_cast<std::uint64_t>(bytes)));
  };
  const MemoryUse& use = m.memory;
  std::string text = "\nmemory at the peak\n";
  text += line("base (mapped from disk)", use.base);
  text += line("adapters, trained weights", use.adapters);
  text += line("gradients", use.gradients);
  text += line("optimizer", use.optimizer);
  text += line("activations", use.activations);
  for (const auto& [name, bytes] : largest(use.activations_by_name)) {
    text += line("  " + name, static_cast<std::int64_t>(bytes));
  }
  text += line("workspace", use.workspace);
  for (const auto& [name, bytes] : largest(use.workspace_by_name)) {
    text += line("  " + name, static_cast<std::int64_t>(bytes));
  }
  text += line("kernel scratch", use.kernel_scratch);
  text += line("peak resident memory", static_cast<std::int64_t>(m.peak_rss));
  return text;
}

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
          .allocations = allocation_count(),
          .disk_read_bytes = disk_read_bytes()};
}

ProcessUse operator-(const ProcessUse& later, const ProcessUse& earlier) {
  return {.minor_faults = later.minor_faults - earlier.minor_faults,
          .major_faults = later.major_faults - earlier.major_faults,
          .voluntary_switches = later.voluntary_switches - earlier.voluntary_switches,
          .involuntary_switches = later.involuntary_switches - earlier.involuntary_switches,
          .cpu_seconds = later.cpu_seconds - earlier.cpu_seconds,
          .allocations = later.allocations - earlier.allocations,
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
        if (phase == "recompute") row.recompute_flops += sums.flops / steps;
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
    row.rating = rate(row.forward_flops + row.input_gradient_flops + row.weight_gradient_flops +
                          row.recompute_flops,
                      row.bytes, row.seconds, measured.peaks);
  }
  return rows;
}

std::string measured_text(const Measurement& m, const std::vector<MeasuredRow>& rows) {
  const auto steps = static_cast<double>(m.seconds.size());
  const OpSums total = m.profile.total();
  const Rating all = rate(total.flops, total.bytes, m.total_seconds(), m.peaks);
  std::string text;
  text += fmt::format(
      "peak of this machine, {} threads: {:.1f} GFLOP/s (matrix product), {:.1f} "
      "GB/s (memory, read and written)\n",
      m.threads, m.peaks.matrix_flops / 1e9, m.peaks.memory_bytes / 1e9);
  text += fmt::format(
      "step: {} tokens in {:.4f} s (median of {}), {:.0f} tokens/s, {:.1f} GFLOP, "
      "{} GFLOP/s, {} of the matrix peak\n\n",
      m.tokens, median(m.seconds), m.seconds.size(),
      static_cast<double>(m.tokens) / median(m.seconds), total.flops / steps / 1e9, rate_text(all),
      share_text(all));
  text += fmt::format("{:<22} {:<10} {:>14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>10} {:>6} {}\n",
                      "part", "kind", "parameters", "fwd GF", "dX GF", "dW GF", "MB", "ms", "share",
                      "GFLOP/s", "peak", "bound");
  for (const MeasuredRow& row : rows) {
    text += fmt::format(
        "{:<22} {:<10} {:>14} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.1f} {:>9.2f} {:>5.1f}% {:>10} {:>6} "
        "{}\n",
        row.name, row.kind, format_count(row.parameters),
        (row.forward_flops + row.recompute_flops) / 1e9, row.input_gradient_flops / 1e9,
        row.weight_gradient_flops / 1e9, row.bytes / 1e6, row.seconds * 1e3, 100.0 * row.share,
        rate_text(row.rating), share_text(row.rating), row.rating.bound);
  }
  text += fmt::format("\n{:<24} {:>8} {:>9} {:>6} {:>10} {:>6} {:>8} {}\n", "op", "calls", "ms",
                      "share", "GFLOP/s", "peak", "GB/s", "bound");
  for (const auto& [name, sums] : sorted_ops(m.profile)) {
    const Rating rating = rate(sums.flops, sums.bytes, sums.seconds, m.peaks);
    text += fmt::format("{:<24} {:>8.0f} {:>9.2f} {:>5.1f}% {:>10} {:>6} {:>8.1f} {}\n", name,
                        static_cast<double>(sums.calls) / steps, sums.seconds / steps * 1e3,
                        100.0 * sums.seconds / m.total_seconds(), rate_text(rating),
                        share_text(rating), sums.bytes / sums.seconds / 1e9, rating.bound);
  }
  text += memory_text(m);
  text += fmt::format(
      "\n{} steady steps: {} minor and {} major page faults, {} voluntary and {} "
      "involuntary context switches, CPUs busy {:.0f} %, {} allocations, {} read from disk\n",
      m.seconds.size(), m.use.minor_faults, m.use.major_faults, m.use.voluntary_switches,
      m.use.involuntary_switches, 100.0 * busy_share(m), m.use.allocations,
      format_bytes(static_cast<std::uint64_t>(m.use.disk_read_bytes)));
  return text;
}

json measured_json(const Measurement& m, const std::vector<MeasuredRow>& rows) {
  const auto steps = static_cast<double>(m.seconds.size());
  json layers = json::array();
  for (const MeasuredRow& row : rows) {
    layers.push_back({{"name", row.name},
                      {"kind", row.kind},
                      {"parameters", row.parameters},
                      {"forward_flops", row.forward_flops},
                      {"input_gradient_flops", row.input_gradient_flops},
                      {"weight_gradient_flops", row.weight_gradient_flops},
                      {"recompute_flops", row.recompute_flops},
                      {"bytes", row.bytes},
                      {"seconds", row.seconds},
                      {"share", row.share},
                      {"flops_per_second", optional_json(row.rating.flops_per_second)},
                      {"share_of_peak", optional_json(row.rating.share_of_peak)},
                      {"above_peak", row.rating.above_peak},
                      {"bound", row.rating.bound}});
  }
  json ops = json::array();
  for (const auto& [name, sums] : sorted_ops(m.profile)) {
    const Rating rating = rate(sums.flops, sums.bytes, sums.seconds, m.peaks);
    ops.push_back({{"name", name},
                   {"calls", static_cast<double>(sums.calls) / steps},
                   {"flops", sums.flops / steps},
                   {"bytes", sums.bytes / steps},
                   {"seconds", sums.seconds / steps},
                   {"share", sums.seconds / m.total_seconds()},
                   {"flops_per_second", optional_json(rating.flops_per_second)},
                   {"share_of_peak", optional_json(rating.share_of_peak)},
                   {"above_peak", rating.above_peak},
                   {"bound", rating.bound}});
  }
  const OpSums total = m.profile.total();
  const Rating all = rate(total.flops, total.bytes, m.total_seconds(), m.peaks);
  const MemoryUse& use = m.memory;
  return {{"per", "step"},
          {"layers", layers},
          {"ops", ops},
          {"step",
           {{"tokens", m.tokens},
            {"seconds", m.total_seconds() / steps},
            {"median_seconds", median(m.seconds)},
            {"each_seconds", m.seconds},
            {"tokens_per_second", static_cast<double>(m.tokens) / median(m.seconds)},
            {"flops", total.flops / steps},
            {"bytes", total.bytes / steps},
            {"op_calls", static_cast<double>(total.calls) / steps},
            {"flops_per_second", optional_json(all.flops_per_second)},
            {"share_of_peak", optional_json(all.share_of_peak)},
            {"above_peak", all.above_peak}}},
          {"peaks",
           {{"matrix_flops_per_second", m.peaks.matrix_flops},
            {"memory_bytes_per_second", m.peaks.memory_bytes},
            {"threads", m.threads}}},
          {"memory",
           {{"parts",
             {{"base", use.base},
              {"adapters", use.adapters},
              {"gradients", use.gradients},
              {"optimizer", use.optimizer},
              {"activations", use.activations},
              {"workspace", use.workspace},
              {"kernel_scratch", use.kernel_scratch}}},
            {"activations", use.activations_by_name},
            {"workspace", use.workspace_by_name},
            {"peak_rss_bytes", m.peak_rss}}},
          {"steady",
           {{"steps", m.seconds.size()},
            {"minor_page_faults", m.use.minor_faults},
            {"allocations", m.use.allocations},
            {"disk_read_bytes", m.use.disk_read_bytes},
            {"major_page_faults", m.use.major_faults},
            {"voluntary_context_switches", m.use.voluntary_switches},
            {"involuntary_context_switches", m.use.involuntary_switches},
            {"cpu_seconds", m.use.cpu_seconds},
            {"busy_share", busy_share(m)}}}};
}

}  // namespace ds::profile
