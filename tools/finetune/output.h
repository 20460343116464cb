// The output folder of a training run, and what goes into a checkpoint.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "libcore/cli/run.h"
#include "libcore/train/checkpoint_state.h"
#include "libcore/train/stages.h"
#include "tools/finetune/session.h"
#include "tools/finetune/train_data.h"
#include "tools/finetune/training_curve.h"

namespace ds::finetune {

// Creates the folder, proves that it can be written to, removes what a killed run left half done.
// Throws Error(kUsage) when it holds a finished run or checkpoints and neither
// --resume_from_checkpoint nor --overwrite_output_dir was given (the latter removes that run's
// files).
void prepare_output(const StateSettings& settings, cli::Run& run);

// The checkpoint --resume_from_checkpoint names. Throws Error(kBadInput) when there is none.
std::filesystem::path resume_folder(const StateSettings& settings, cli::Run& run);

// The adapter (or, with full-parameter training, the model's weights) in `folder`.
void save_weights(const std::filesystem::path& folder, const AdapterPlan& adapter,
                  const BaseModel& base, DeepSeekModel& model);
void load_weights(const std::filesystem::path& folder, const AdapterPlan& adapter,
                  DeepSeekModel& model);

// Whether `output` holds the product of the run's state in `checkpoint`: the same weights. They are
// the last thing a run writes.
bool has_product(const std::filesystem::path& output, const std::filesystem::path& checkpoint,
                 const AdapterPlan& adapter);

// README.md and training.svg.
void write_run_files(const std::filesystem::path& output, const TrainSettings& settings,
                     cli::Run& run, const BaseModel& base, const AdapterPlan& adapter,
                     const TrainData& data, const std::vector<Stage>& stages,
                     const TrainingCurve& curve, const RunPosition& position);

// Every setting that changes the result of a run, as name -> value. The number of threads is not
// among them: another number changes the last bits only, and a run may move to another machine.
std::map<std::string, std::string> result_settings(const TrainSettings& settings,
                                                   const AdapterPlan& adapter,
                                                   ChatTemplate chat_template);

}  // namespace ds::finetune
