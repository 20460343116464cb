// The flags of deepseek-profile.
#pragma once

#include <CLI/CLI.hpp>

#include "tools/profile/settings.h"

namespace ds::profile {

void declare_layers(CLI::App& app, LayersSettings& settings);
void declare_bench(CLI::App& app, BenchSettings& settings);

}  // namespace ds::profile
