// The measured steps as they went: what ran when, and what was live.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/tensor/arena.h"
#include "tools/profile/op_profile.h"

namespace ds::profile {

// Times are nanoseconds since the first measured step began.

// A scope or an op; every span lies wholly inside its parent.
struct Span {
  std::string_view name;    // of the scope or op; has static storage
  std::int64_t index = -1;  // number of a layer
  std::int64_t parent = -1;
  bool op = false;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  double flops = 0.0;           // an op's own
  double bytes = 0.0;           // an op's own
  std::size_t activations = 0;  // bytes live while an op ran
  std::size_t workspace = 0;
};

struct MemorySample {
  std::int64_t at = 0;
  std::vector<Arena::Allocation> activations;
  std::vector<Arena::Allocation> workspace;
  std::size_t kernel_scratch = 0;
  std::size_t bytes = 0;  // of all three
};

// A layer or another part in one phase: a scope that no other encloses.
struct Segment {
  std::string name;   // "embedding", "layers.3", "head", "optimizer"
  std::string phase;  // "forward", "head", "backward", "optimizer"
  std::int64_t span = 0;
  std::int64_t begin = 0;
  std::int64_t end = 0;
  MemorySample at_begin;
  MemorySample at_end;
  std::size_t peak = 0;  // largest MemorySample::bytes while it ran
};

// The largest MemorySample::bytes of a step: what was live, and what ran.
struct MemoryPeak {
  MemorySample sample;
  std::int64_t segment = -1;  // index; -1: between two
  std::string_view op;        // empty: outside every op
};

// Passes everything on to an OpProfile. Besides, in steps that are begun with `record`, keeps every
// scope and op with what was live at the ends of the outermost ones.
class Recorder : public OpObserver {
 public:
  struct Step {
    std::int64_t begin = 0;
    std::int64_t end = 0;
    std::size_t first_span = 0, last_span = 0;        // [first, last) of spans()
    std::size_t first_segment = 0, last_segment = 0;  // [first, last) of segments()
    MemoryPeak peak;
  };

  // All must outlive the recorder.
  Recorder(OpProfile& profile, const Device& device, const Arena& activations,
           const Arena& workspace)
      : profile_(profile), device_(device), activations_(activations), workspace_(workspace) {}

  void begin_step(bool record);
  void end_step();
  // Of the recorded steps.
  const std::vector<Step>& steps() const { return steps_; }
  const std::vector<Span>& spans() const { return spans_; }
  const std::vector<Segment>& segments() const { return segments_; }

  void before(std::string_view op, const OpWork& work) override;
  void after(std::string_view op) override;
  void enter(std::string_view scope, std::int64_t index) override;
  void leave() override;

 private:
  std::int64_t now() const;
  MemorySample sample(std::int64_t at) const;
  void see_memory(std::int64_t at, std::string_view op);
  void name_segment(Segment& segment) const;

  OpProfile& profile_;
  const Device& device_;
  const Arena& activations_;
  const Arena& workspace_;
  std::optional<OpProfile::Clock::time_point> origin_;
  bool recording_ = false;
  std::vector<Step> steps_;
  std::vector<Span> spans_;
  std::vector<Segment> segments_;
  std::int64_t open_ = -1;  // innermost scope that has not been left
  OpWork work_;
};

// Bytes by name; by what stands before the first dot of it ("attention" of "attention.xn").
std::map<std::string, std::size_t> by_name(const std::vector<Arena::Allocation>& allocations);
std::map<std::string, std::size_t> by_part(const std::vector<Arena::Allocation>& allocations);

}  // namespace ds::profile
