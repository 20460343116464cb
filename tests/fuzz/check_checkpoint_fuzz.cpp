// Bytes as a checkpoint folder (or a part of one): the first byte picks flags of deepseek-check,
// the rest is files as input_files.h says.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/support/check_program.h"

namespace {

constexpr const char* kNames[] = {"config.json",
                                  "model.safetensors.index.json",
                                  "model-00001-of-00002.safetensors",
                                  "model-00002-of-00002.safetensors",
                                  "model.safetensors",
                                  "tokenizer.json",
                                  "tokenizer_config.json",
                                  "special_tokens_map.json",
                                  "generation_config.json",
                                  "chat_template.jinja",
                                  "tokenizer.model",
                                  "model-00001-of-00001.safetensors"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ds::fuzz::run_folder(data, size, kNames, [](auto& settings, const auto& folder, std::uint8_t) {
    settings.paths = {folder};
  });
  return 0;
}
