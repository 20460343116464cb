// Bytes as a GGUF model, in one file or two parts, or (bit 128 of the first byte) as an adapter of
// a tiny base; the other bits pick flags, the rest is files as input_files.h says.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/support/check_program.h"

namespace {

constexpr const char* kNames[] = {"model.gguf", "model-00001-of-00002.gguf",
                                  "model-00002-of-00002.gguf", "adapter.gguf", "config.json"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ds::fuzz::run_folder(data, size, kNames,
                       [](auto& settings, const auto& folder, std::uint8_t bits) {
                         if ((bits & 128) == 0) {
                           settings.paths = {folder};
                         } else {
                           settings.paths = {folder / "adapter.gguf"};
                           settings.model = ds::fuzz::base_model();
                         }
                       });
  return 0;
}
