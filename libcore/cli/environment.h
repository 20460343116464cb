// The environment variables the programs read (only libcore/cli reads the environment).
#pragma once

#include "libcore/config/model_config.h"

namespace ds::cli {

// $DEEPSEEK_MODELS, $HF_HUB_CACHE, $HF_HOME, $HOME.
ModelSearchPaths model_search_paths();

}  // namespace ds::cli
