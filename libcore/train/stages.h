// Progressive stages of one run (design: cumulative step boundaries, one adapter).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ds {

struct Stage {
  std::int64_t first_step = 1;  // inclusive, from 1
  std::int64_t last_step = 0;   // inclusive
  double lr_factor = 1.0;
  std::string targets;  // `--lora_target` spelling of what this stage trains; empty: everything
  std::string data;     // a file of its own; empty: the run's dataset
};

// "1000,3000,5000" -> cumulative ends. Throws Error(kUsage) showing the wrong part: not a positive
// integer, not rising.
std::vector<std::int64_t> parse_stage_steps(const std::string& text);

struct StageSpelling {
  std::string steps;       // --stage_steps
  std::string lr_factors;  // --stage_lr_factors, comma-separated, one a stage
  std::string targets;     // --stage_targets, separated by ';'
  std::string data;        // --stage_data, comma-separated files, one a stage
};
// Stages of a run of `total_steps`; one stage when no steps are given. Throws Error(kUsage).
std::vector<Stage> parse_stages(const StageSpelling& spelling, std::int64_t total_steps);

}  // namespace ds
