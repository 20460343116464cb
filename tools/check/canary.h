// deepseek-check canary: may a candidate take the place of a baseline, step by step.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libcore/cli/run.h"

namespace ds::check {

struct CanarySettings {
  std::string baseline, candidate;
  std::string baseline_adapter, candidate_adapter;
  std::vector<std::string> dataset;
  std::string stages = "1,5,25,100";
  double until = 100.0;
  std::vector<std::string> gates;
  std::string undecided = "fail";
  std::string state;
  std::string chat_template = "auto";
  bool thinking = false;
  std::int64_t cutoff_len = 2048;
  std::int64_t max_new_tokens = 64;
  std::int64_t batch_size = 32;
  std::int64_t seed = 42;
  std::string dtype = "f32";
};

// Both models on growing slices of the traffic; stops at the first stage with a failed gate.
void run_canary(const CanarySettings& settings, cli::Run& run);

}  // namespace ds::check
