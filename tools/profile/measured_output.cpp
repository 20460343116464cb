#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libcore/base/format.h"
#include "tools/profile/measured_layers.h"

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
  if (m.decode) text += line("latent cache", use.kv_cache);
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

std::string rows_text(const std::vector<MeasuredRow>& rows) {
  std::string text = fmt::format(
      "{:<22} {:<10} {:>14} {:>9} {:>9} {:>9} {:>9} {:>9} {:>6} {:>10} {:>6} {}\n", "part", "kind",
      "parameters", "fwd GF", "dX GF", "dW GF", "MB", "ms", "share", "GFLOP/s", "peak", "bound");
  for (const MeasuredRow& row : rows) {
    text += fmt::format(
        "{:<22} {:<10} {:>14} {:>9.3f} {:>9.3f} {:>9.3f} {:>9.1f} {:>9.2f} {:>5.1f}% {:>10} {:>6} "
        "{}\n",
        row.name, row.kind, format_count(row.parameters),
        (row.forward_flops + row.recompute_flops) / 1e9, row.input_gradient_flops / 1e9,
        row.weight_gradient_flops / 1e9, row.bytes / 1e6, row.seconds * 1e3, 100.0 * row.share,
        rate_text(row.rating), share_text(row.rating), row.rating.bound);
  }
  return text;
}

std::string decode_rows_text(const std::vector<MeasuredRow>& rows) {
  std::string text =
      fmt::format("{:<22} {:<10} {:>14} {:>9} {:>10} {:>9} {:>10} {:>9} {:>6} {:>8} {:>8} {}\n",
                  "part", "kind", "parameters", "GF", "by formula", "MB", "by formula", "ms",
                  "share", "GFLOP/s", "GB/s", "bound");
  for (const MeasuredRow& row : rows) {
    const std::string bandwidth = row.seconds > 0.0 && row.bytes > 0.0
                                      ? fmt::format("{:.1f}", row.bytes / row.seconds / 1e9)
                                      : "-";
    text += fmt::format(
        "{:<22} {:<10} {:>14} {:>9.4f} {:>10.4f} {:>9.2f} {:>10.2f} {:>9.3f} {:>5.1f}% {:>8} {:>8} "
        "{}\n",
        row.name, row.kind, format_count(row.parameters), row.forward_flops / 1e9,
        row.formula_flops / 1e9, row.bytes / 1e6, row.formula_bytes / 1e6, row.seconds * 1e3,
        100.0 * row.share, rate_text(row.rating), bandwidth, row.rating.bound);
  }
  return text;
}

}  // namespace

std::string measured_text(const Measurement& m, const std::vector<MeasuredRow>& rows) {
  const auto steps = static_cast<double>(m.seconds.size());
  const OpSums total = m.profile.total();
  const Rating all = rate(total.flops, total.bytes, m.total_seconds(), m.peaks);
  std::string text = fmt::format(
      "step: {} tokens in {:.4f} s (median of {}), {:.0f} tokens/s, {:.4g} GFLOP, "
      "{} GFLOP/s, {} of the matrix peak",
      m.tokens, median(m.seconds), m.seconds.size(),
      static_cast<double>(m.tokens) / median(m.seconds), total.flops / steps / 1e9, rate_text(all),
      share_text(all));
  if (m.decode) {
    const double rate = total.bytes / m.total_seconds();
    text += fmt::format(", {:.1f} GB/s, {:.0f} % of the memory peak", rate / 1e9,
                        100.0 * rate / m.peaks.memory_bytes);
  }
  text += "\n\n" + (m.decode ? decode_rows_text(rows) : rows_text(rows));
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
  text += timeline_text(m.timeline);
  text += fmt::format(
      "\n{} steady {}: {} minor and {} major page faults, {} voluntary and {} "
      "involuntary context switches, CPUs busy {:.0f} %, {} allocations ({} more by the matrix "
      "library), {} read from disk\n",
      m.seconds.size(), m.seconds.size() == 1 ? "step" : "steps", m.use.minor_faults,
      m.use.major_faults, m.use.voluntary_switches, m.use.involuntary_switches,
      100.0 * busy_share(m), format_count(m.allocations.own), format_count(m.allocations.library),
      format_bytes(static_cast<std::uint64_t>(m.use.disk_read_bytes)));
  return text;
}

json ops_json(const Measurement& m) {
  const auto steps = static_cast<double>(m.seconds.size());
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
  return ops;
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
                      {"recompute_seconds", row.recompute_seconds},
                      {"bytes", row.bytes},
                      {"seconds", row.seconds},
                      {"share", row.share},
                      {"flops_per_second", optional_json(row.rating.flops_per_second)},
                      {"share_of_peak", optional_json(row.rating.share_of_peak)},
                      {"above_peak", row.rating.above_peak},
                      {"bound", row.rating.bound}});
    if (!m.decode) continue;
    layers.back()["formula_flops"] = row.formula_flops;
    layers.back()["formula_bytes"] = row.formula_bytes;
  }
  const OpSums total = m.profile.total();
  const Rating all = rate(total.flops, total.bytes, m.total_seconds(), m.peaks);
  const MemoryUse& use = m.memory;
  return {{"per", "step"},
          {"layers", layers},
          {"ops", ops_json(m)},
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
          {"memory",
           {{"parts",
             {{"base", use.base},
              {"adapters", use.adapters},
              {"gradients", use.gradients},
              {"optimizer", use.optimizer},
              {"kv_cache", use.kv_cache},
              {"activations", use.activations},
              {"workspace", use.workspace},
              {"kernel_scratch", use.kernel_scratch}}},
            {"activations", use.activations_by_name},
            {"workspace", use.workspace_by_name},
            {"peak_rss_bytes", m.peak_rss}}},
          {"memory_timeline", timeline_json(m.timeline)},
          {"steady",
           {{"steps", m.seconds.size()},
            {"minor_page_faults", m.use.minor_faults},
            {"allocations", m.allocations.own},
            {"library_allocations", m.allocations.library},
            {"disk_read_bytes", m.use.disk_read_bytes},
            {"major_page_faults", m.use.major_faults},
            {"voluntary_context_switches", m.use.voluntary_switches},
            {"involuntary_context_switches", m.use.involuntary_switches},
            {"cpu_seconds", m.use.cpu_seconds},
            {"busy_share", busy_share(m)}}}};
}

}  // namespace ds::profile
