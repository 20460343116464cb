#include "tools/convert/recipe.h"

namespace ds::convert {

std::byte* Workbench::buffer(std::size_t slot, std::size_t bytes) {
  if (buffers_.size() <= slot) buffers_.resize(slot + 1);
  Tensor& memory = buffers_[slot];
  if (!memory || memory.bytes() < static_cast<std::int64_t>(bytes)) {
    memory = Tensor();  // the old memory is given back first
    memory = Tensor(DType::kU8, {static_cast<std::int64_t>(bytes)});
  }
  return static_cast<std::byte*>(memory.data());
}

const std::byte* Workbench::read(const MappedFile& file, std::uint64_t offset, std::size_t bytes,
                                 std::size_t slot) {
  std::byte* memory = buffer(slot, bytes);
  reader_.read(file, offset, bytes, memory);
  return memory;
}

}  // namespace ds::convert
