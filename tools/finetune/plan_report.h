// What a run is about to do, in words and as JSON.
#pragma once

#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libcore/cli/run.h"
#include "libcore/train/memory_plan.h"
#include "libcore/train/stages.h"
#include "libcore/train/step_estimate.h"
#include "tools/finetune/selective_use.h"
#include "tools/finetune/session.h"
#include "tools/finetune/train_data.h"

namespace ds::finetune {

// Says what was read and dropped (words), and emits deepseek/data/1.
void report_data(cli::Run& run, const Dataset& dataset, const std::string& split);

// The `--dry_run` plan.
struct Plan {
  const ModelConfig& config;
  const AdapterPlan& adapter;
  std::string method;
  const std::vector<Stage>& stages;
  const TrainData& data;
  const MemoryPlan& memory;
  std::optional<SelectionPlan> selection;  // none without --selective_computation_threshold
  StepEstimate step;
  std::int64_t available = 0;
  std::vector<ActivationGroup> activations;  // what --activation_checkpointing selective chose from
  std::int64_t element_bytes = 0;            // of one activation
  std::int64_t activation_bytes = 0;         // the same for all tokens of a micro-batch
};
std::string plan_text(const Plan& plan);
nlohmann::json plan_json(const Plan& plan);

// "attention 48,503,296; experts 3,284,140,032".
std::string kinds_text(const std::map<std::string, std::int64_t>& by_kind);

// Makes exactly the modules of a stage's `targets` spelling trainable (empty: all). Throws
// Error(kUsage) when it names nothing the adapter has.
void apply_stage_targets(const std::string& targets, const AdapterPlan& adapter,
                         const ModelConfig& config, DeepSeekModel& model);

}  // namespace ds::finetune
