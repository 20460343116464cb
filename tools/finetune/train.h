// deepseek-finetune train.
#pragma once

#include <string>
#include <vector>

#include "libcore/cli/run.h"
#include "tools/finetune/settings.h"

namespace ds::finetune {

// Trains and writes the output folder. Returns normally when done; throws Error otherwise
// (kInterrupted after a signal, with the state saved).
void run_train(const TrainSettings& settings, cli::Run& run);

}  // namespace ds::finetune
