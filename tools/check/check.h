// deepseek-check PATH...
#pragma once

#include "libcore/cli/run.h"
#include "tools/check/options.h"

namespace ds::check {

// Checks everything named, writes the product and one event a finding. Ends with exit code 1 when a
// finding reaches --fail_on. Throws Error(kBadInput) for a path that is not there or is nothing we
// know, Error(kUsage) for a rule or group that is unknown.
void run_check(const CheckSettings& settings, cli::Run& run);

}  // namespace ds::check
