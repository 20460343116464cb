// Bytes as a checkpoint folder (or a part of one): the first byte picks flags of deepseek-check,
// the rest is files as input_files.h says.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/fuzz/support/check_program.h"
#include "tests/fuzz/support/input_files.h"

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
  static const ds::fuzz::MemoryFolder folder;
  if (size == 0) return 0;
  const std::string_view files(reinterpret_cast<const char*>(data) + 1, size - 1);
  folder.hold(ds::fuzz::split_input(files, kNames));
  ds::check::CheckSettings settings = ds::fuzz::settings_of(data[0]);
  settings.paths = {folder.path()};
  ds::fuzz::run_program(settings, data[0]);
  return 0;
}
