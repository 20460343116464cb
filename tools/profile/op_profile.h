// Where the time of a step goes: an observer that sorts ops by part of the model and by kind.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/tensor/device.h"

namespace ds::profile {

// Sums over the measured steps.
struct OpSums {
  double seconds = 0.0;
  double flops = 0.0;
  double weight_gradient_flops = 0.0;  // of flops
  double bytes = 0.0;
  std::int64_t calls = 0;
  OpSums& operator+=(const OpSums& other);
};

// Every op is counted once: in the innermost part that encloses it ("embedding",
// "layers.3.attention", "layers.3.mlp", "head", "optimizer"; "other" outside all), under the
// innermost phase ("forward", "backward", "recompute"), and under its kind.
class OpProfile : public OpObserver {
 public:
  using Clock = std::chrono::steady_clock;
  struct Part {
    std::map<std::string, OpSums> phases;
    OpSums total() const;
  };

  void before(std::string_view op, const OpWork& work) override;
  void after(std::string_view op) override;
  void enter(std::string_view scope, std::int64_t index) override;
  void leave() override;

  // Forgets what was counted (after the warm-up step).
  void reset();
  const std::map<std::string, Part>& parts() const { return parts_; }
  const std::map<std::string, OpSums>& ops() const { return ops_; }
  OpSums total() const;
  // When the op that was counted last began and ended.
  Clock::time_point last_begin() const { return begin_; }
  Clock::time_point last_end() const { return end_; }

 private:
  struct Scope {
    std::string part;
    std::string phase;
    std::string layer;  // "layers.3."
  };
  std::vector<Scope> scopes_;
  std::map<std::string, Part> parts_;
  std::map<std::string, OpSums> ops_;
  OpWork work_;
  Clock::time_point begin_;
  Clock::time_point end_;
};

}  // namespace ds::profile
