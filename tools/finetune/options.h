// The flags of deepseek-finetune.
#pragma once

#include <CLI/CLI.hpp>

#include "tools/finetune/settings.h"

namespace ds::finetune {

void declare_train(CLI::App& app, TrainSettings& settings);
void declare_eval(CLI::App& app, EvalSettings& settings);
void declare_generate(CLI::App& app, GenerateSettings& settings);
void declare_info(CLI::App& app, InfoSettings& settings);

}  // namespace ds::finetune
