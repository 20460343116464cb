// Bytes as a GGUF model, in one file or two parts, or (bit 128 of the first byte) as an adapter of
// a tiny base; the other bits pick flags, the rest is files as input_files.h says.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/fuzz/support/check_program.h"
#include "tests/fuzz/support/input_files.h"

namespace {

constexpr const char* kNames[] = {"model.gguf", "model-00001-of-00002.gguf",
                                  "model-00002-of-00002.gguf", "adapter.gguf", "config.json"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ds::fuzz::MemoryFolder folder;
  if (size == 0) return 0;
  const std::string_view files(reinterpret_cast<const char*>(data) + 1, size - 1);
  folder.hold(ds::fuzz::split_input(files, kNames));
  ds::check::CheckSettings settings = ds::fuzz::settings_of(data[0]);
  if ((data[0] & 128) == 0) {
    settings.paths = {folder.path()};
  } else {
    settings.paths = {folder.path() / "adapter.gguf"};
    settings.model = ds::fuzz::base_model();
  }
  ds::fuzz::run_program(settings, data[0]);
  return 0;
}
