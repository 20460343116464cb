// Bytes as a folder of inference shards: the first byte picks flags of deepseek-check, the rest is
// files as input_files.h says.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/fuzz/support/check_program.h"
#include "tests/fuzz/support/input_files.h"

namespace {

constexpr const char* kNames[] = {
    "model0-mp2.safetensors", "model1-mp2.safetensors", "model0-mp1.safetensors", "config.json",
    "tokenizer.json",         "tokenizer_config.json",  "generation_config.json"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ds::fuzz::MemoryFolder folder;
  if (size == 0) return 0;
  const std::string_view files(reinterpret_cast<const char*>(data) + 1, size - 1);
  folder.hold(ds::fuzz::split_input(files, kNames));
  ds::check::CheckSettings settings = ds::fuzz::settings_of(data[0]);
  settings.paths = {folder.path()};
  ds::fuzz::run_program(settings, data[0]);
  return 0;
}
