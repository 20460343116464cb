// --fix and --fix_output
#pragma once

#include <vector>

#include "libcore/check/detect.h"
#include "libcore/check/finding.h"
#include "tools/check/options.h"
#include "tools/check/result.h"

namespace ds::check {

// Repairs what can be of `found` (section i + 1 is of targets[i]), adds it to `result`, and lets
// `targets` name what is to be looked at afterwards. Returns whether anything was written: then the
// repaired files may show more that can be repaired, and the next call repairs that; what this run
// wrote before is overwritten without a copy. Throws Error(kUsage), Error(kIo).
bool apply_fixes(const CheckSettings& settings, std::vector<Detected>& targets,
                 const std::vector<Finding>& found, FixResult& result);

}  // namespace ds::check
