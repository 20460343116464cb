#include "tools/profile/trace.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <vector>

namespace ds::profile {

namespace {

using nlohmann::json;

struct Work {
  double flops = 0.0;
  double bytes = 0.0;
};

// Always valid JSON, whatever is in a name.
std::string json_text(std::string_view text) {
  return json(std::string(text)).dump(-1, ' ', false, json::error_handler_t::replace);
}

std::string microseconds(std::int64_t nanoseconds) {
  return fmt::format("{}.{:03}", nanoseconds / 1000, nanoseconds % 1000);
}

class TraceWriter {
 public:
  TraceWriter(AtomicFile& file, const MachinePeaks& peaks) : file_(file), peaks_(peaks) {
    buffer_ = "{\"displayTimeUnit\":\"ms\",\"traceEvents\":[\n";
  }

  void name(const char* what, const std::string& name) {
    event(fmt::format(R"({{"ph":"M","pid":1,"tid":1,"name":"{}","args":{{"name":{}}}}})", what,
                      json_text(name)));
  }

  void slice(std::string_view name, const char* category, std::int64_t begin, std::int64_t end,
             const Work& work) {
    const double seconds = 1e-9 * static_cast<double>(end - begin);
    const Rating rating = rate(work.flops, work.bytes, seconds, peaks_);
    std::string args = fmt::format(R"("flops":{:.0f},"bytes":{:.0f})", work.flops, work.bytes);
    if (rating.flops_per_second) {
      args += fmt::format(R"(,"gflops_per_second":{:.3f},"share_of_peak":{:.4f})",
                          *rating.flops_per_second / 1e9, *rating.share_of_peak);
    }
    if (end > begin) {
      args += fmt::format(R"(,"gbytes_per_second":{:.3f},"bound":"{}")", work.bytes / seconds / 1e9,
                          rating.bound);
    }
    if (rating.above_peak) args += R"(,"above_peak":true)";
    event(fmt::format(
        R"({{"ph":"X","pid":1,"tid":1,"ts":{},"dur":{},"cat":"{}","name":{},"args":{{{}}}}})",
        microseconds(begin), microseconds(end - begin), category, json_text(name), args));
  }

  void counter(const char* name, std::int64_t at, const std::string& values) {
    event(fmt::format(R"({{"ph":"C","pid":1,"ts":{},"name":"{}","args":{{{}}}}})", microseconds(at),
                      name, values));
  }

  void finish() {
    buffer_ += "\n]}\n";
    file_.write(buffer_);
    file_.commit();
  }

 private:
  void event(const std::string& text) {
    if (!first_) buffer_ += ",\n";
    first_ = false;
    buffer_ += text;
    constexpr std::size_t kFull = std::size_t{1} << 20;
    if (buffer_.size() < kFull) return;
    file_.write(buffer_);
    buffer_.clear();
  }

  AtomicFile& file_;
  const MachinePeaks& peaks_;
  std::string buffer_;
  bool first_ = true;
};

// What the ops inside each span cost.
std::vector<Work> sum_work(const std::vector<Span>& spans) {
  std::vector<Work> sums(spans.size());
  for (std::size_t i = spans.size(); i-- > 0;) {  // children lie behind their parents
    sums[i].flops += spans[i].flops;
    sums[i].bytes += spans[i].bytes;
    if (spans[i].parent < 0) continue;
    Work& parent = sums[static_cast<std::size_t>(spans[i].parent)];
    parent.flops += sums[i].flops;
    parent.bytes += sums[i].bytes;
  }
  return sums;
}

Work work_between(const std::vector<Span>& spans, const std::vector<Work>& sums, std::size_t first,
                  std::size_t last) {
  Work work;
  for (std::size_t i = first; i < last; ++i) {
    if (spans[i].parent >= 0) continue;
    work.flops += sums[i].flops;
    work.bytes += sums[i].bytes;
  }
  return work;
}

void write_counters(TraceWriter& out, const Recorder& recorder, const Recorder::Step& step) {
  const auto parts = [&](const char* name, const std::vector<Arena::Allocation>& allocations,
                         std::map<std::string, std::size_t>& known, std::int64_t at) {
    for (auto& [part, bytes] : known) bytes = 0;  // a part that is gone is shown as gone
    for (const auto& [part, bytes] : by_part(allocations)) known[part] = bytes;
    std::string values;
    for (const auto& [part, bytes] : known) {
      values += fmt::format("{}{}:{}", values.empty() ? "" : ",", json_text(part), bytes);
    }
    if (!values.empty()) out.counter(name, at, values);
  };
  std::map<std::string, std::size_t> activations;
  std::map<std::string, std::size_t> workspace;
  for (std::size_t i = step.first_segment; i < step.last_segment; ++i) {
    const Segment& segment = recorder.segments()[i];
    for (const MemorySample* sample : {&segment.at_begin, &segment.at_end}) {
      parts("activations by part", sample->activations, activations, sample->at);
      parts("workspace by part", sample->workspace, workspace, sample->at);
    }
  }
  const Span* last = nullptr;
  for (std::size_t i = step.first_span; i < step.last_span; ++i) {
    const Span& span = recorder.spans()[i];
    if (!span.op) continue;
    if (last != nullptr && last->activations == span.activations &&
        last->workspace == span.workspace) {
      continue;
    }
    last = &span;
    out.counter(
        "memory", span.begin,
        fmt::format(R"("activations":{},"workspace":{})", span.activations, span.workspace));
  }
}

class StepWriter {
 public:
  StepWriter(TraceWriter& out, const Recorder& recorder, const std::vector<Work>& sums)
      : out_(out), spans_(recorder.spans()), segments_(recorder.segments()), sums_(sums) {}

  void write(const Recorder::Step& step, std::size_t number) {
    out_.slice(fmt::format("step {}", number), "step", step.begin, step.end,
               work_between(spans_, sums_, step.first_span, step.last_span));
    std::size_t segment = step.first_segment;
    std::size_t phase_end = segment;
    for (std::size_t i = step.first_span; i < step.last_span; ++i) {
      const Span& span = spans_[i];
      const bool starts_segment =
          segment < step.last_segment && segments_[segment].span == static_cast<std::int64_t>(i);
      if (starts_segment && segment == phase_end) phase_end = write_phase(step, segment);
      if (starts_segment) ++segment;
      out_.slice(span.index >= 0 ? fmt::format("layers.{}", span.index) : std::string(span.name),
                 span.op ? "op" : "part", span.begin, span.end, sums_[i]);
    }
  }

 private:
  // The slice around the segments of one phase from `first` on; returns the next segment.
  std::size_t write_phase(const Recorder::Step& step, std::size_t first) {
    std::size_t last = first;
    while (last < step.last_segment && segments_[last].phase == segments_[first].phase) ++last;
    const auto begin_span = static_cast<std::size_t>(segments_[first].span);
    const std::size_t end_span =
        last < step.last_segment ? static_cast<std::size_t>(segments_[last].span) : step.last_span;
    const std::int64_t end = segments_[last - 1].end;
    Work work;
    for (std::size_t i = begin_span; i < end_span; ++i) {
      if (spans_[i].parent >= 0 || spans_[i].end > end) continue;
      work.flops += sums_[i].flops;
      work.bytes += sums_[i].bytes;
    }
    out_.slice(segments_[first].phase, "phase", segments_[first].begin, end, work);
    return last;
  }

  TraceWriter& out_;
  const std::vector<Span>& spans_;
  const std::vector<Segment>& segments_;
  const std::vector<Work>& sums_;
};

}  // namespace

void write_trace(AtomicFile& file, const Recorder& recorder, const MachinePeaks& peaks,
                 const std::string& title) {
  TraceWriter out(file, peaks);
  out.name("process_name", title);
  out.name("thread_name", "steps");
  const std::vector<Work> sums = sum_work(recorder.spans());
  StepWriter steps(out, recorder, sums);
  std::size_t number = 0;
  for (const Recorder::Step& step : recorder.steps()) {
    steps.write(step, ++number);
    write_counters(out, recorder, step);
  }
  out.finish();
}

}  // namespace ds::profile
