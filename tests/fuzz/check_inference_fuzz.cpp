// Bytes as a folder of inference shards: the first byte picks flags of deepseek-check, the rest is
// files as input_files.h says.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/support/check_program.h"

namespace {

constexpr const char* kNames[] = {
    "model0-mp2.safetensors", "model1-mp2.safetensors", "model0-mp1.safetensors", "config.json",
    "tokenizer.json",         "tokenizer_config.json",  "generation_config.json"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ds::fuzz::run_folder(data, size, kNames, [](auto& settings, const auto& folder, std::uint8_t) {
    settings.paths = {folder};
  });
  return 0;
}
