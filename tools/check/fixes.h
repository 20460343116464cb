// --fix and --fix_output
#pragma once

#include <vector>

#include "libcore/check/detect.h"
#include "libcore/check/finding.h"
#include "tools/check/options.h"
#include "tools/check/result.h"

namespace ds::check {

// Repairs what can be of `found` (section i + 1 is of targets[i]), and lets `targets` name what is
// to be looked at afterwards. Throws Error(kUsage), Error(kIo).
FixResult apply_fixes(const CheckSettings& settings, std::vector<Detected>& targets,
                      const std::vector<Finding>& found);

}  // namespace ds::check
