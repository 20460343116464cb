#include "tools/profile/recorder.h"

#include <algorithm>

#include "tools/profile/allocations.h"

namespace ds::profile {

namespace {

std::int64_t nanoseconds(OpProfile::Clock::duration duration) {
  return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

}  // namespace

std::int64_t Recorder::now() const { return nanoseconds(OpProfile::Clock::now() - *origin_); }

void Recorder::begin_step(bool record) {
  if (!origin_) origin_ = OpProfile::Clock::now();
  recording_ = record;
  if (!recording_) return;
  Step& step = steps_.emplace_back();
  step.begin = now();
  step.first_span = step.last_span = spans_.size();
  step.first_segment = step.last_segment = segments_.size();
  see_memory(step.begin, "");
}

void Recorder::end_step() {
  if (!recording_) return;
  Step& step = steps_.back();
  step.end = now();
  step.last_span = spans_.size();
  step.last_segment = segments_.size();
  for (std::size_t i = step.first_segment; i < step.last_segment; ++i) name_segment(segments_[i]);
  recording_ = false;
}

MemorySample Recorder::sample(std::int64_t at) const {
  MemorySample sample{.at = at,
                      .activations = activations_.allocations(),
                      .workspace = workspace_.allocations(),
                      .kernel_scratch = device_.scratch_bytes()};
  sample.bytes = activations_.used_bytes() + workspace_.used_bytes() + sample.kernel_scratch;
  return sample;
}

void Recorder::see_memory(std::int64_t at, std::string_view op) {
  const std::size_t bytes =
      activations_.used_bytes() + workspace_.used_bytes() + device_.scratch_bytes();
  const bool inside = open_ >= 0;
  if (inside) segments_.back().peak = std::max(segments_.back().peak, bytes);
  MemoryPeak& peak = steps_.back().peak;
  if (bytes <= peak.sample.bytes) return;
  peak.sample.at = at;
  // Assigned, so that the memory of the last peak is used again: in the forward pass every op may
  // be a new one.
  peak.sample.activations = activations_.allocations();
  peak.sample.workspace = workspace_.allocations();
  peak.sample.kernel_scratch = device_.scratch_bytes();
  peak.sample.bytes = bytes;
  peak.segment = inside ? static_cast<std::int64_t>(segments_.size()) - 1 : -1;
  peak.op = op;
}

void Recorder::before(std::string_view op, const OpWork& work) {
  const Uncounted measuring;
  work_ = work;
  profile_.before(op, work);
}

void Recorder::after(std::string_view op) {
  const Uncounted measuring;
  profile_.after(op);
  if (!recording_) return;
  const std::int64_t end = nanoseconds(profile_.last_end() - *origin_);
  spans_.push_back({.name = op,
                    .parent = open_,
                    .op = true,
                    .begin = nanoseconds(profile_.last_begin() - *origin_),
                    .end = end,
                    .flops = work_.cost.flops,
                    .bytes = work_.cost.bytes,
                    .activations = activations_.used_bytes(),
                    .workspace = workspace_.used_bytes()});
  see_memory(end, op);
}

void Recorder::enter(std::string_view scope, std::int64_t index) {
  const Uncounted measuring;
  profile_.enter(scope, index);
  if (!recording_) return;
  const std::int64_t at = now();
  const auto span = static_cast<std::int64_t>(spans_.size());
  if (open_ < 0) segments_.push_back({.span = span, .begin = at, .at_begin = sample(at)});
  spans_.push_back({.name = scope, .index = index, .parent = open_, .begin = at, .end = at});
  open_ = span;
  see_memory(at, "");
}

void Recorder::leave() {
  const Uncounted measuring;
  profile_.leave();
  if (!recording_) return;
  const std::int64_t at = now();
  see_memory(at, "");
  Span& span = spans_[static_cast<std::size_t>(open_)];
  span.end = at;
  open_ = span.parent;
  if (open_ >= 0) return;
  segments_.back().end = at;
  segments_.back().at_end = sample(at);
}

void Recorder::name_segment(Segment& segment) const {
  const auto first = static_cast<std::size_t>(segment.span);
  segment.name = spans_[first].name;
  segment.phase = segment.name == "head" || segment.name == "optimizer" ? segment.name : "forward";
  for (std::size_t i = first; i < spans_.size() && (i == first || spans_[i].parent >= segment.span);
       ++i) {
    const Span& span = spans_[i];
    if (span.op) continue;
    if (span.name == "layer") segment.name = "layers." + std::to_string(span.index);
    // Of a loss the gradient is part of the head.
    if (span.name == "backward" && segment.phase == "forward") segment.phase = "backward";
  }
}

std::map<std::string, std::size_t> by_name(const std::vector<Arena::Allocation>& allocations) {
  std::map<std::string, std::size_t> sums;
  for (const auto& [name, bytes] : allocations) sums[std::string(name)] += bytes;
  return sums;
}

std::map<std::string, std::size_t> by_part(const std::vector<Arena::Allocation>& allocations) {
  std::map<std::string, std::size_t> sums;
  for (const auto& [name, bytes] : allocations) {
    sums[std::string(name.substr(0, name.find('.')))] += bytes;
  }
  return sums;
}

}  // namespace ds::profile
