// deepseek-finetune info.
#pragma once

#include "libcore/cli/run.h"
#include "tools/finetune/settings.h"

namespace ds::finetune {

void run_info(const InfoSettings& settings, cli::Run& run);

}  // namespace ds::finetune
