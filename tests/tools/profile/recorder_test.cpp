// What the recorder keeps, and the trace that is made of it.
#include "tools/profile/recorder.h"

#include <doctest/doctest.h>

#include "tests/support/paths.h"
#include "tests/tools/profile/program.h"
#include "tests/tools/profile/trace_rules.h"
#include "tools/profile/memory_timeline.h"
#include "tools/profile/trace.h"

using namespace ds::profile;
using ds::Arena;
using ds::ArenaScope;
using ds::DType;
using nlohmann::json;

namespace {

// A step of two layers: memory as a training step takes it, in small.
struct Steps {
  OpProfile profile;
  ds::Device device = ds::Device::cpu(1);
  Arena activations{"activations"};
  Arena workspace{"workspace"};
  Recorder recorder{profile, device, activations, workspace};

  void op(const char* name, double flops, double bytes) {
    recorder.before(name, {.cost = {flops, bytes}, .weight_gradient_flops = 0.0});
    recorder.after(name);
  }
  void layer(int index, bool backward) {
    recorder.enter("layer", index);
    if (backward) recorder.enter("backward", -1);
    recorder.enter("mlp", -1);
    if (!backward) activations.allocate("mlp.xn", DType::kF32, {1024});
    {
      ArenaScope scope(workspace);
      workspace.allocate("mlp.dxn", DType::kF32, {backward ? 4096 : 256});
      op("gemm", 100.0, 10.0);
    }
    op("swiglu", 1.0, 5.0);
    recorder.leave();
    if (backward) recorder.leave();
    recorder.leave();
  }
  void step() {
    ArenaScope scope(activations);
    recorder.enter("embedding", -1);
    activations.allocate("block.h", DType::kF32, {16});
    op("embedding_forward", 0.0, 64.0);
    recorder.leave();
    layer(0, false);
    layer(1, false);
    recorder.enter("head", -1);
    op("gemm", 7.0, 1.0);
    recorder.enter("backward", -1);
    op("gemm", 14.0, 2.0);
    recorder.leave();
    recorder.leave();
    // As with full recomputation: the scope is outside the layer's.
    recorder.enter("recompute", -1);
    layer(1, true);
    recorder.leave();
    layer(0, true);
    recorder.enter("optimizer", -1);
    op("adamw", 3.0, 30.0);
    recorder.leave();
  }
};

std::vector<std::string> phases(const MemoryTimeline& timeline) {
  std::vector<std::string> names;
  for (const MemorySpan& span : timeline.spans) names.push_back(span.phase + " " + span.name);
  return names;
}

}  // namespace

TEST_CASE("memory over a step: spans in order, bytes at their borders, the peak and its make-up") {
  Steps s;
  s.recorder.begin_step(false);
  s.step();
  s.recorder.end_step();
  CHECK(s.recorder.steps().empty());
  s.recorder.begin_step(true);
  s.step();
  s.recorder.end_step();
  CHECK(s.profile.total().calls == 2 * 12);

  const MemoryUse before{.base = 1000, .adapters = 10, .gradients = 20, .optimizer = 0};
  const MemoryUse after{.base = 1000, .adapters = 10, .gradients = 20, .optimizer = 40};
  const MemoryTimeline timeline = make_timeline(s.recorder, before, after);
  CHECK(phases(timeline) == std::vector<std::string>{"forward embedding", "forward layers.0",
                                                     "forward layers.1", "head head",
                                                     "backward layers.1", "backward layers.0",
                                                     "optimizer optimizer"});
  const std::int64_t scratch = timeline.spans[0].begin.parts.at("kernel_scratch");
  const std::int64_t held = 30 + scratch;
  const std::int64_t one = 4096;  // bytes of a layer's activations; 64 of the embedding
  CHECK(timeline.spans[0].begin.bytes == held);
  CHECK(timeline.spans[0].end.bytes == held + 64);
  CHECK(timeline.spans[1].end.bytes == held + 64 + one);
  CHECK(timeline.spans[1].peak_bytes == held + 64 + one + 1024);
  CHECK(timeline.spans[2].end.bytes == held + 64 + 2 * one);
  CHECK(timeline.spans[2].end.activations.at("mlp.xn") == 2 * one);
  CHECK(timeline.spans[2].end.activations.at("block.h") == 64);
  CHECK(timeline.spans[3].peak_bytes == held + 64 + 2 * one);
  CHECK(timeline.spans[4].peak_bytes == held + 64 + 2 * one + 4 * one);
  CHECK(timeline.spans[6].begin.parts.at("optimizer") == 0);
  CHECK(timeline.spans[6].end.parts.at("optimizer") == 40);
  // The base is told apart: it is the file's memory.
  CHECK(timeline.peak.parts.at("base") == 1000);
  CHECK(timeline.peak.bytes == held + 64 + 6 * one);
  CHECK(timeline.peak_phase == "backward");
  CHECK(timeline.peak_name == "layers.1");
  CHECK(timeline.peak_op == "gemm");
  CHECK(timeline.peak.workspace.at("mlp.dxn") == 4 * one);
  double last = 0.0;
  for (const MemorySpan& span : timeline.spans) {
    CHECK(last <= span.begin.seconds);
    CHECK(span.begin.seconds <= span.end.seconds);
    last = span.end.seconds;
  }
  CHECK(last <= timeline.seconds);

  const std::string text = timeline_text(timeline);
  CHECK(ds::test::has(text, "backward of layers.1, gemm"));
  const std::string bar(32, '=');  // the longest bar is the peak
  CHECK_FALSE(ds::test::has(text, bar + "="));
}

TEST_CASE("a long run of one phase is shown by its ends and its largest") {
  MemoryTimeline timeline;
  const LiveMemory none{.parts = {{"base", 0}, {"activations", 0}, {"workspace", 0}}};
  for (int i = 0; i < 61; ++i) {
    timeline.spans.push_back({.name = "layers." + std::to_string(i),
                              .phase = "forward",
                              .begin = none,
                              .end = none,
                              .peak_bytes = i == 30 ? 2 : 1});
  }
  timeline.peak = none;
  const std::string text = timeline_text(timeline);
  for (const char* part : {"layers.0 ", "layers.2 ", "layers.30 ", "layers.58 ", "layers.60 "}) {
    CHECK_MESSAGE(ds::test::has(text, part), part);
  }
  CHECK_FALSE(ds::test::has(text, "layers.3 "));
  CHECK(ds::test::has(text, "... 27 more"));
}

TEST_CASE("the trace: valid events that nest, work that sums up, names that cannot break it") {
  Steps s;
  for (int i = 0; i < 2; ++i) {
    s.recorder.begin_step(true);
    s.step();
    s.recorder.end_step();
  }
  const ds::test::Folder f;
  const std::string path = f.path("trace.json");
  {
    ds::AtomicFile file(path);
    write_trace(file, s.recorder, {.matrix_flops = 1e-3, .memory_bytes = 1.0},
                "a \"model\"\n\\ \xff");
  }
  const json trace = json::parse(ds::read_file(path));
  CHECK(ds::test::trace_problems(trace) == std::vector<std::string>{});

  std::map<std::string, int> count;
  for (const json& event : trace["traceEvents"]) {
    if (event["ph"] != "X") continue;
    ++count[event["cat"].get<std::string>() + " " + event["name"].get<std::string>()];
    // The peak of this test is below every rate.
    const bool works = event["args"]["flops"] > 0.0;
    CHECK(event["args"].value("above_peak", false) == works);
    CHECK_FALSE(event["args"].contains("gflops_per_second"));
    if (event["name"] == "step 1") {
      CHECK(event["args"]["flops"] == 4 * 101.0 + 7.0 + 14.0 + 3.0);
      CHECK(event["args"]["bytes"] == 4 * 15.0 + 64.0 + 3.0 + 30.0);
    }
    if (event["name"] == "backward" && event["cat"] == "phase") {
      CHECK(event["args"]["flops"] == 202.0);
    }
  }
  CHECK(count["step step 1"] == 1);
  CHECK(count["step step 2"] == 1);
  CHECK(count["phase forward"] == 2);
  CHECK(count["phase head"] == 2);
  CHECK(count["phase backward"] == 2);
  CHECK(count["phase optimizer"] == 2);
  CHECK(count["part layers.0"] == 4);
  CHECK(count["op gemm"] == 2 * 6);
}

TEST_CASE("the rules of a trace find what breaks it") {
  const auto event = [](double ts, double dur) {
    return json{{"ph", "X"},  {"pid", 1},    {"tid", 1},       {"ts", ts},
                {"dur", dur}, {"cat", "op"}, {"name", "gemm"}, {"args", json::object()}};
  };
  const auto problems = [](json events) {
    return ds::test::trace_problems({{"traceEvents", std::move(events)}}).size();
  };
  CHECK(problems({event(0, 10), event(1, 9), event(10, 2)}) == 0);
  CHECK(problems({event(0, 10), event(1, 10)}) == 1);  // sticks out
  CHECK(problems({event(5, 1), event(0, 1)}) == 1);    // goes back
  json no_duration = event(0, 1);
  no_duration.erase("dur");
  CHECK(problems({no_duration}) == 1);
  CHECK(problems({{{"ph", "C"}, {"pid", 1}, {"ts", 1}, {"name", "m"}, {"args", {{"a", "1"}}}}}) ==
        1);
}
