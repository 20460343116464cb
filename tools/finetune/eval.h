// deepseek-finetune eval.
#pragma once

#include "libcore/cli/run.h"
#include "tools/finetune/settings.h"

namespace ds::finetune {

void run_eval(const EvalSettings& settings, cli::Run& run);

}  // namespace ds::finetune
