// The stages of a canary in the forms of standard output.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libcore/eval/gate.h"

namespace ds::check {

struct GateResult {
  Gate gate;
  Measured measured;
  Verdict verdict = Verdict::kUndecided;
  bool passed = false;           // nothing speaks against going on
  std::int64_t rows_needed = 0;  // when undecided; 0: unknown
};
struct CanaryStage {
  double percent = 0.0;
  std::size_t rows = 0;
  std::vector<GateResult> gates;
  nlohmann::json metrics;
  bool passed() const;
};

nlohmann::json stage_json(const CanaryStage& stage);
std::string stage_text(const CanaryStage& stage);
// A suite for each stage, a case for each gate.
std::string canary_junit(const std::vector<CanaryStage>& stages);

}  // namespace ds::check
