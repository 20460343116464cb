// deepseek-convert data.
#pragma once

#include "libcore/cli/run.h"
#include "tools/convert/data_settings.h"

namespace ds::convert {

void run_data(const DataSettings& settings, cli::Run& run);

}  // namespace ds::convert
