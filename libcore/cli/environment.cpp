#include "libcore/cli/environment.h"

#include <cstdlib>

namespace ds::cli {

namespace {
std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value != nullptr ? value : "";
}
}  // namespace

ModelSearchPaths model_search_paths() {
  return {.deepseek_models = variable("DEEPSEEK_MODELS"),
          .hf_hub_cache = variable("HF_HUB_CACHE"),
          .hf_home = variable("HF_HOME"),
          .home = variable("HOME")};
}

}  // namespace ds::cli
