// Bytes as a safetensors file and as a shard index: refused with Error(kBadInput), or what comes
// out keeps its promises.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/base/utf8.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/io/safetensors_header.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void check_header(std::span<const std::byte> file) {
  const ds::SafetensorsHeader header = ds::parse_safetensors_header(file, "fuzz");
  require(header.by_name.size() == header.tensors.size());
  std::uint64_t end = 0;
  for (const ds::TensorInfo& tensor : header.tensors) {
    require(tensor.begin <= tensor.end && tensor.end <= file.size());
    require(end == 0 || tensor.begin == end);
    end = tensor.end;
    std::uint64_t bytes = 0;
    bool whole = false;
    require(ds::tensor_bytes(tensor.dtype, tensor.shape, bytes, whole));
    require(whole && bytes == tensor.bytes());
    require(ds::utf8_error(tensor.name) == ds::kUtf8Valid);
  }
  require(header.tensors.empty() || end == file.size());
  for (std::size_t i = 1; i < header.by_name.size(); ++i) {
    require(header.tensors[header.by_name[i - 1]].name < header.tensors[header.by_name[i]].name);
  }
}

void check_index(std::string_view text) {
  const ds::ShardIndex index = ds::parse_shard_index(text, "fuzz");
  for (std::size_t i = 0; i < index.items.size(); ++i) {
    require(index.items[i].file < index.files.size());
    require(i == 0 || index.items[i - 1].tensor < index.items[i].tensor);
  }
  for (const std::string& file : index.files) {
    require(!file.empty() && file.find('/') == std::string::npos && file != "..");
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    check_header(std::as_bytes(std::span(data, size)));
  } catch (const ds::Error& error) {
    require(error.code() == ds::ExitCode::kBadInput);
  }
  try {
    check_index({reinterpret_cast<const char*>(data), size});
  } catch (const ds::Error& error) {
    require(error.code() == ds::ExitCode::kBadInput);
  }
  return 0;
}
