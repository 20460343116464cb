// The flags of deepseek-convert data.
#pragma once

#include <CLI/CLI.hpp>

#include "tools/convert/data_settings.h"

namespace ds::convert {

void declare_data(CLI::App& app, DataSettings& settings);

}  // namespace ds::convert
