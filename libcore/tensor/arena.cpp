#include "libcore/tensor/arena.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>

#include "libcore/base/error.h"

namespace ds {

namespace {
constexpr std::size_t kAlignment = 64;
constexpr std::size_t kSmallestBlock = std::size_t{4} << 20;
constexpr std::size_t kLargestStep = std::size_t{256} << 20;
}  // namespace

Arena::Arena(std::string name) : name_(std::move(name)) {}

Arena::~Arena() {
  for (const Block& block : blocks_) std::free(block.data);
}

View Arena::allocate(std::string_view name, DType dtype,
                     std::initializer_list<std::int64_t> extents) {
  std::size_t bytes = static_cast<std::size_t>(kernels::dtype_size(dtype));
  for (const std::int64_t extent : extents) bytes *= static_cast<std::size_t>(extent);
  const std::size_t rounded =
      std::max(kAlignment, (bytes + kAlignment - 1) / kAlignment * kAlignment);

  while (block_ < blocks_.size() && offset_ + rounded > blocks_[block_].size) {
    ++block_;
    offset_ = 0;
  }
  if (block_ == blocks_.size()) {
    // Blocks double so that their number stays small, but the step is bounded: untouched memory of
    // a large last block would count as needed under an address-space limit.
    const std::size_t grown =
        blocks_.empty() ? kSmallestBlock : std::min(blocks_.back().size * 2, kLargestStep);
    Block block;
    block.size = std::max(grown, rounded);
    block.data = static_cast<std::byte*>(std::aligned_alloc(kAlignment, block.size));
    if (block.data == nullptr) {
      throw Error(ExitCode::kResources,
                  fmt::format("out of memory: '{}' in {} needs {} bytes on top of {} in use", name,
                              name_, rounded, used_),
                  "use a smaller batch, a smaller --cutoff_len or --activation_checkpointing full");
    }
    blocks_.push_back(block);
    offset_ = 0;
  }
  std::byte* memory = blocks_[block_].data + offset_;
  offset_ += rounded;
  used_ += rounded;
  allocations_.push_back({name, rounded});
  if (used_ > peak_) {
    peak_ = used_;
    at_peak_ = allocations_;
  }
  return View(memory, dtype, extents);
}

void Arena::release(const Mark& mark) {
  block_ = mark.block;
  offset_ = mark.offset;
  used_ = mark.used;
  allocations_.resize(mark.allocations);
}

std::map<std::string, std::size_t> Arena::peak_by_name() const {
  std::map<std::string, std::size_t> by_name;
  for (const Allocation& allocation : at_peak_) {
    by_name[std::string(allocation.name)] += allocation.bytes;
  }
  return by_name;
}

}  // namespace ds
