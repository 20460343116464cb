// The flags of deepseek-convert.
#pragma once

#include <CLI/CLI.hpp>

#include "tools/convert/settings.h"

namespace ds::convert {

void declare_weights(CLI::App& app, WeightsSettings& settings);

}  // namespace ds::convert
