// deepseek-profile bench.
#pragma once

#include "libcore/cli/run.h"
#include "tools/profile/settings.h"

namespace ds::profile {

// Prints the measured cases, and with --compare their ratios to an earlier run.
void run_bench(const BenchSettings& settings, cli::Run& run);

}  // namespace ds::profile
