// deepseek-convert weights.
#pragma once

#include "libcore/cli/run.h"
#include "tools/convert/settings.h"

namespace ds::convert {

void run_weights(const WeightsSettings& settings, cli::Run& run);

}  // namespace ds::convert
