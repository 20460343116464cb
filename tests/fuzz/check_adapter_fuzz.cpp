// Bytes as an adapter folder, checked against a tiny base (bit 128 of the first byte: without one);
// the other bits pick flags, the rest is files as input_files.h says.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tests/fuzz/support/check_program.h"
#include "tests/fuzz/support/input_files.h"

namespace {

constexpr const char* kNames[] = {"adapter_config.json", "adapter_model.safetensors",
                                  "adapter_model.bin"};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const ds::fuzz::MemoryFolder folder;
  if (size == 0) return 0;
  const std::string_view files(reinterpret_cast<const char*>(data) + 1, size - 1);
  folder.hold(ds::fuzz::split_input(files, kNames));
  ds::check::CheckSettings settings = ds::fuzz::settings_of(data[0]);
  settings.adapter = folder.path();
  if ((data[0] & 128) == 0) settings.model = ds::fuzz::base_model();
  ds::fuzz::run_program(settings, data[0]);
  return 0;
}
