// The flags of deepseek-convert.
#pragma once

#include <CLI/CLI.hpp>

#include "tools/convert/adapter.h"
#include "tools/convert/merge.h"
#include "tools/convert/settings.h"

namespace ds::convert {

void declare_weights(CLI::App& app, WeightsSettings& settings);
void declare_merge(CLI::App& app, MergeSettings& settings);
void declare_adapter(CLI::App& app, AdapterSettings& settings);

}  // namespace ds::convert
