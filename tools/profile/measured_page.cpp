#include "tools/profile/measured_page.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/format.h"

namespace ds::profile {

namespace {

using nlohmann::json;

std::string bytes_text(std::int64_t bytes) {
  return format_bytes(static_cast<std::uint64_t>(bytes));
}

std::vector<Column> row_columns(const Measurement& m) {
  std::vector<Column> columns{{"name", "part"}, {"kind", "kind"}, {"parameters", "parameters"}};
  const auto add = [&](const Column& column) { columns.push_back(column); };
  add({"forward_flops", "forward GFLOP", 1e9, 4});
  if (m.decode) {
    add({"formula_flops", "by formula", 1e9, 4});
  } else {
    add({"input_gradient_flops", "dX GFLOP", 1e9, 4});
    add({"weight_gradient_flops", "dW GFLOP", 1e9, 4});
    add({"recompute_flops", "again GFLOP", 1e9, 4});
  }
  add({"bytes", "MB", 1e6, 2});
  if (m.decode) add({"formula_bytes", "by formula", 1e6, 2});
  add({"seconds", "ms", 1e-3, 3});
  add({"share", "share %", 0.01, 1});
  add({"flops_per_second", "GFLOP/s", 1e9, 1});
  add({"share_of_peak", "of peak %", 0.01, 1});
  add({"above_peak", "above peak"});
  add({"bound", "bound"});
  return columns;
}

// Seconds of a part by phase.
Bars time_bars(const Measurement& m, const std::vector<MeasuredRow>& rows) {
  const char* const kPhases[] = {"forward", "backward", "recompute"};
  const auto steps = static_cast<double>(m.seconds.size());
  Bars bars{.series = {"forward", "backward", "recomputed", "between ops"}};
  for (const MeasuredRow& row : rows) {
    std::vector<double> values(4, 0.0);
    const auto found = m.profile.parts().find(row.name);
    double inside = 0.0;
    for (std::size_t i = 0; found != m.profile.parts().end() && i < 3; ++i) {
      const auto phase = found->second.phases.find(kPhases[i]);
      if (phase != found->second.phases.end()) values[i] = phase->second.seconds / steps;
      inside += values[i];
    }
    values[3] = std::max(0.0, row.seconds - inside);
    bars.bars.push_back({.label = row.name,
                         .values = std::move(values),
                         .note = fmt::format("{:.2f} ms", row.seconds * 1e3)});
  }
  return bars;
}

Bars memory_bars(const MemoryTimeline& timeline) {
  const char* const kParts[] = {"adapters",  "gradients",   "optimizer",     "kv_cache",
                                "workspace", "activations", "kernel_scratch"};
  Bars bars{.series = {"adapters", "gradients", "optimizer", "latent cache", "workspace",
                       "activations", "kernel scratch", "more inside the phase"}};
  for (const MemorySpan& span : timeline.spans) {
    std::vector<double> values;
    for (const char* part : kParts) values.push_back(static_cast<double>(span.end.parts.at(part)));
    values.push_back(static_cast<double>(span.peak_bytes - span.end.bytes));
    bars.bars.push_back({.label = span.phase + " " + span.name,
                         .values = std::move(values),
                         .note = bytes_text(span.peak_bytes)});
  }
  return bars;
}

PageSection peak_section(const LiveMemory& peak) {
  PageSection section{.heading = "Memory at the peak, by name",
                      .columns = {{"where", "where"}, {"name", "name"}, {"bytes", "bytes"}}};
  for (const auto& [name, bytes] : peak.parts) {
    if (name == "activations" || name == "workspace" || bytes == 0) continue;
    section.table.push_back({{"where", name}, {"name", ""}, {"bytes", bytes}});
  }
  for (const auto& [where, names] :
       {std::pair{"activations", &peak.activations}, std::pair{"workspace", &peak.workspace}}) {
    for (const auto& [name, bytes] : *names) {
      section.table.push_back({{"where", where}, {"name", name}, {"bytes", bytes}});
    }
  }
  std::stable_sort(section.table.begin(), section.table.end(), [](const json& a, const json& b) {
    return a["bytes"].get<std::int64_t>() > b["bytes"].get<std::int64_t>();
  });
  return section;
}

}  // namespace

Product measured_page(const Measurement& m, const std::vector<MeasuredRow>& rows,
                      const std::string& peaks) {
  Product product{.rows = "layers", .columns = row_columns(m)};
  const double seconds = m.total_seconds() / static_cast<double>(m.seconds.size());
  product.facts = {peaks.substr(0, peaks.find('\n')),
                   fmt::format("step: {} tokens in {:.4f} s, the mean of {}", m.tokens, seconds,
                               m.seconds.size()),
                   fmt::format("memory: at most {} at once, and {} of the base mapped from disk",
                               bytes_text(m.timeline.peak.bytes), bytes_text(m.memory.base))};
  product.more.push_back({.heading = "Time by part", .bars = time_bars(m, rows)});
  product.more.push_back({.heading = "Memory over the last step, at the end of each phase",
                          .bars = memory_bars(m.timeline)});
  product.more.push_back(peak_section(m.timeline.peak));
  product.more.push_back({.heading = "Kinds of operations",
                          .table = ops_json(m),
                          .columns = {{"name", "op"},
                                      {"calls", "calls", 1.0, 0},
                                      {"seconds", "ms", 1e-3, 3},
                                      {"share", "share %", 0.01, 1},
                                      {"flops", "GFLOP", 1e9, 4},
                                      {"bytes", "MB", 1e6, 2},
                                      {"flops_per_second", "GFLOP/s", 1e9, 1},
                                      {"share_of_peak", "of peak %", 0.01, 1},
                                      {"bound", "bound"}}});
  return product;
}

}  // namespace ds::profile
