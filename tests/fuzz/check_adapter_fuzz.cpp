// Bytes as an adapter folder, checked against a tiny base (bit 128 of the first byte: without one);
// the other bits pick flags, the rest is files as input_files.h says.
#include <cstddef>
#include <cstdint>

#include "tests/fuzz/support/check_program.h"

namespace {

constexpr const char* kNames[] = {"adapter_config.json", "adapter_model.safetensors",
                                  "adapter_model.bin"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  ds::fuzz::run_folder(data, size, kNames,
                       [](auto& settings, const auto& folder, std::uint8_t bits) {
                         settings.adapter = folder;
                         if ((bits & 128) == 0) settings.model = ds::fuzz::base_model();
                       });
  return 0;
}
