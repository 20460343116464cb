// deepseek-check list PATH
#pragma once

#include "libcore/cli/run.h"
#include "tools/check/options.h"

namespace ds::check {

// Throws Error(kBadInput) for what cannot be listed.
void run_list(const ListSettings& settings, cli::Run& run);

}  // namespace ds::check
