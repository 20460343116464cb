#include "tools/profile/memory_timeline.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libcore/base/format.h"

namespace ds::profile {

namespace {

using nlohmann::json;

LiveMemory live(const MemorySample& sample, std::int64_t step_begin, const MemoryUse& held) {
  LiveMemory memory;
  memory.seconds = 1e-9 * static_cast<double>(sample.at - step_begin);
  memory.activations = by_name(sample.activations);
  memory.workspace = by_name(sample.workspace);
  const auto sum = [](const std::map<std::string, std::size_t>& names) {
    std::size_t bytes = 0;
    for (const auto& [name, size] : names) bytes += size;
    return static_cast<std::int64_t>(bytes);
  };
  memory.parts = {{"adapters", held.adapters},
                  {"gradients", held.gradients},
                  {"optimizer", held.optimizer},
                  {"kv_cache", held.kv_cache},
                  {"activations", sum(memory.activations)},
                  {"workspace", sum(memory.workspace)},
                  {"kernel_scratch", static_cast<std::int64_t>(sample.kernel_scratch)}};
  for (const auto& [name, bytes] : memory.parts) memory.bytes += bytes;
  memory.parts["base"] = held.base;
  return memory;
}

std::string bytes_text(std::int64_t bytes) {
  return format_bytes(static_cast<std::uint64_t>(bytes));
}

// "#" for activations, "+" for the workspace, "=" for what is held throughout, "." up to the peak.
std::string bar(const MemorySpan& span, std::int64_t whole) {
  constexpr std::int64_t kWidth = 32;
  const auto cells = [&](std::int64_t bytes) {
    return whole > 0 ? (bytes * kWidth + whole / 2) / whole : 0;
  };
  const std::int64_t activations = span.end.parts.at("activations");
  const std::int64_t workspace = span.end.parts.at("workspace");
  std::string text;
  // Ends of the stack, so that rounding does not add up.
  const auto fill = [&](std::int64_t until, char mark) {
    text.append(static_cast<std::size_t>(std::max<std::int64_t>(
                    0, cells(until) - static_cast<std::int64_t>(text.size()))),
                mark);
  };
  fill(span.end.bytes - activations - workspace, '=');
  fill(span.end.bytes - workspace, '#');
  fill(span.end.bytes, '+');
  fill(span.peak_bytes, '.');
  return text;
}

// Which of the spans [first, last), all of one phase, are worth a line.
std::vector<std::size_t> shown(const std::vector<MemorySpan>& spans, std::size_t first,
                               std::size_t last) {
  constexpr std::size_t kEnds = 3;
  std::vector<std::size_t> lines;
  std::size_t largest = first;
  for (std::size_t i = first; i < last; ++i) {
    if (spans[i].peak_bytes > spans[largest].peak_bytes) largest = i;
  }
  for (std::size_t i = first; i < last; ++i) {
    if (last - first <= 2 * kEnds + 1 || i - first < kEnds || last - i <= kEnds || i == largest) {
      lines.push_back(i);
    }
  }
  return lines;
}

// "backward of layers.3", "head".
std::string place(const MemoryTimeline& timeline) {
  if (timeline.peak_name.empty()) return "no part";
  if (timeline.peak_name == timeline.peak_phase) return timeline.peak_name;
  return timeline.peak_phase + " of " + timeline.peak_name;
}

std::string span_line(const MemorySpan& span, std::int64_t whole) {
  const auto part = [&](const char* name) { return bytes_text(span.end.parts.at(name)); };
  return fmt::format("{:<10} {:<11} {:>10.2f} {:>11} {:>11} {:>11} {:>11}  {}\n", span.phase,
                     span.name, span.end.seconds * 1e3, part("activations"), part("workspace"),
                     bytes_text(span.end.bytes), bytes_text(span.peak_bytes), bar(span, whole));
}

json live_json(const LiveMemory& memory) {
  return {{"seconds", memory.seconds},
          {"bytes", memory.bytes},
          {"parts", memory.parts},
          {"activations", memory.activations},
          {"workspace", memory.workspace}};
}

json or_null(const std::string& text) { return text.empty() ? json(nullptr) : json(text); }

}  // namespace

MemoryTimeline make_timeline(const Recorder& recorder, const MemoryUse& before,
                             const MemoryUse& after) {
  MemoryTimeline timeline;
  const Recorder::Step& step = recorder.steps().back();
  timeline.seconds = 1e-9 * static_cast<double>(step.end - step.begin);
  // Moments come into being in the optimizer's phase, the first time a parameter has a gradient.
  const auto held = [&](const std::string& phase) -> const MemoryUse& {
    return phase == "optimizer" ? after : before;
  };
  for (std::size_t i = step.first_segment; i < step.last_segment; ++i) {
    const Segment& segment = recorder.segments()[i];
    MemorySpan span{.name = segment.name,
                    .phase = segment.phase,
                    .begin = live(segment.at_begin, step.begin, before),
                    .end = live(segment.at_end, step.begin, held(segment.phase))};
    const auto besides = span.end.bytes - static_cast<std::int64_t>(segment.at_end.bytes);
    span.peak_bytes = besides + static_cast<std::int64_t>(segment.peak);
    timeline.spans.push_back(std::move(span));
  }
  if (step.peak.segment >= 0) {
    const Segment& segment = recorder.segments()[static_cast<std::size_t>(step.peak.segment)];
    timeline.peak_name = segment.name;
    timeline.peak_phase = segment.phase;
  }
  timeline.peak = live(step.peak.sample, step.begin, held(timeline.peak_phase));
  timeline.peak_op = step.peak.op;
  return timeline;
}

std::string timeline_text(const MemoryTimeline& timeline) {
  const LiveMemory& peak = timeline.peak;
  std::string text = fmt::format(
      "\nmemory over the last step ({:.4f} s): at most {} after {:.2f} ms, in {}{}{}\n"
      "  {} of the base are mapped from disk besides\n",
      timeline.seconds, bytes_text(peak.bytes), peak.seconds * 1e3, place(timeline),
      timeline.peak_op.empty() ? "" : ", ", timeline.peak_op, bytes_text(peak.parts.at("base")));
  text += fmt::format("{:<10} {:<11} {:>10} {:>11} {:>11} {:>11} {:>11}  {}\n", "phase", "part",
                      "ends at ms", "activations", "workspace", "live", "peak inside",
                      "= held  # activations  + workspace  . peak");
  const std::vector<MemorySpan>& spans = timeline.spans;
  for (std::size_t first = 0; first < spans.size();) {
    std::size_t last = first;
    while (last < spans.size() && spans[last].phase == spans[first].phase) ++last;
    std::size_t next = first;
    for (const std::size_t i : shown(spans, first, last)) {
      if (i > next) text += fmt::format("{:<10} ... {} more\n", spans[i].phase, i - next);
      text += span_line(spans[i], peak.bytes);
      next = i + 1;
    }
    first = last;
  }
  return text;
}

json timeline_json(const MemoryTimeline& timeline) {
  json spans = json::array();
  for (const MemorySpan& span : timeline.spans) {
    spans.push_back({{"name", span.name},
                     {"phase", span.phase},
                     {"begin", live_json(span.begin)},
                     {"end", live_json(span.end)},
                     {"peak_bytes", span.peak_bytes}});
  }
  json peak = live_json(timeline.peak);
  peak["name"] = or_null(timeline.peak_name);
  peak["phase"] = or_null(timeline.peak_phase);
  peak["op"] = or_null(timeline.peak_op);
  return {{"seconds", timeline.seconds}, {"peak", peak}, {"spans", spans}};
}

}  // namespace ds::profile
