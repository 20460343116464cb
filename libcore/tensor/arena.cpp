#include "libcore/tensor/arena.h"

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>

#include "libcore/base/error.h"

#if defined(__SANITIZE_ADDRESS__)
#define DEEPSEEK_ARENA_POISON
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define DEEPSEEK_ARENA_POISON
#endif
#endif
#ifdef DEEPSEEK_ARENA_POISON
#include <sanitizer/asan_interface.h>
#endif

namespace ds {

namespace {

constexpr std::size_t kAlignment = 64;
constexpr std::size_t kCommitStep = std::size_t{4} << 20;
constexpr std::size_t kLimitedStep = std::size_t{64} << 20;

std::size_t round_up(std::size_t value, std::size_t step) {
  return (value + step - 1) / step * step;
}

// Address space for one block: all that the machine's memory could fill, so that one block is
// enough and nothing is lost at the ends of blocks; little where address space is limited.
std::size_t reservation() {
  rlimit limit{};
  if (::getrlimit(RLIMIT_AS, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY) return kLimitedStep;
  return static_cast<std::size_t>(::sysconf(_SC_PHYS_PAGES)) *
         static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
}

// Under the address sanitizer what was given back may not be touched; elsewhere nothing happens.
void forbid([[maybe_unused]] const std::byte* begin, [[maybe_unused]] std::size_t bytes) {
#ifdef DEEPSEEK_ARENA_POISON
  ASAN_POISON_MEMORY_REGION(begin, bytes);
#endif
}
void permit([[maybe_unused]] const std::byte* begin, [[maybe_unused]] std::size_t bytes) {
#ifdef DEEPSEEK_ARENA_POISON
  ASAN_UNPOISON_MEMORY_REGION(begin, bytes);
#endif
}

}  // namespace

Arena::Arena(std::string name) : name_(std::move(name)) {}

Arena::~Arena() {
  for (const Block& block : blocks_) {
    permit(block.data, block.committed);
    ::munmap(block.data, block.size);
  }
}

void Arena::add_block(std::size_t at_least) {
  Block block;
  block.size = round_up(std::max(reservation(), at_least), kCommitStep);
  void* memory =
      ::mmap(nullptr, block.size, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) return;
  // Products walk over many rows at once: with small pages they wait for address translation.
  ::madvise(memory, block.size, MADV_HUGEPAGE);
  block.data = static_cast<std::byte*>(memory);
  blocks_.push_back(block);
}

bool Arena::commit(Block& block, std::size_t bytes) {
  if (bytes <= block.committed) return true;
  const std::size_t wanted = std::min(block.size, round_up(bytes, kCommitStep));
  if (::mprotect(block.data, wanted, PROT_READ | PROT_WRITE) != 0) return false;
  forbid(block.data + block.committed, wanted - block.committed);
  block.committed = wanted;
  return true;
}

View Arena::allocate(std::string_view name, DType dtype,
                     std::initializer_list<std::int64_t> extents) {
  std::size_t bytes = static_cast<std::size_t>(kernels::dtype_size(dtype));
  for (const std::int64_t extent : extents) bytes *= static_cast<std::size_t>(extent);
  return View(allocate_bytes(name, bytes), dtype, extents);
}

void* Arena::allocate_bytes(std::string_view name, std::size_t bytes) {
  const std::size_t rounded = std::max(kAlignment, round_up(bytes, kAlignment));

  while (block_ < blocks_.size() && offset_ + rounded > blocks_[block_].size) {
    ++block_;
    offset_ = 0;
  }
  if (block_ == blocks_.size()) {
    add_block(rounded);
    offset_ = 0;
  }
  if (block_ == blocks_.size() || !commit(blocks_[block_], offset_ + rounded)) {
    throw Error(ExitCode::kResources,
                fmt::format("out of memory: '{}' in {} needs {} bytes on top of {} in use", name,
                            name_, rounded, used_),
                "use a smaller batch, a smaller --cutoff_len or --activation_checkpointing full");
  }
  std::byte* memory = blocks_[block_].data + offset_;
  permit(memory, bytes);
  offset_ += rounded;
  used_ += rounded;
  allocations_.push_back({name, rounded});
  if (used_ > peak_) {
    peak_ = used_;
    at_peak_ = allocations_;
  }
  return memory;
}

void Arena::reset_peak() {
  peak_ = used_;
  at_peak_ = allocations_;
}

void Arena::release(const Mark& mark) {
  for (std::size_t i = mark.block; i <= block_ && i < blocks_.size(); ++i) {
    const std::size_t begin = i == mark.block ? mark.offset : 0;
    const std::size_t end = i == block_ ? offset_ : blocks_[i].committed;
    if (begin < end) forbid(blocks_[i].data + begin, end - begin);
  }
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
