// deepseek-profile layers.
#pragma once

#include "libcore/cli/run.h"
#include "tools/profile/settings.h"

namespace ds::profile {

// Prints the layer breakdown: measured while the real trainer runs, or with --analytical from the
// config alone.
void run_layers(const LayersSettings& settings, cli::Run& run);

}  // namespace ds::profile
