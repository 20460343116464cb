// deepseek-finetune generate.
#pragma once

#include "libcore/cli/run.h"
#include "tools/finetune/settings.h"

namespace ds::finetune {

void run_generate(const GenerateSettings& settings, cli::Run& run);

}  // namespace ds::finetune
