#include "tools/profile/allocations.h"

#include <atomic>
#include <cerrno>
#include <cstdlib>
#include <new>

namespace {

std::atomic<std::int64_t> g_own{0};
std::atomic<std::int64_t> g_library{0};
thread_local int g_uncounted = 0;

#ifndef __SANITIZE_ADDRESS__
void count(std::atomic<std::int64_t>& counter) {
  if (g_uncounted == 0) counter.fetch_add(1, std::memory_order_relaxed);
}

template <class Take>
void* take(Take take_some) {
  count(g_own);
  while (true) {
    if (void* memory = take_some()) return memory;
    const std::new_handler handler = std::get_new_handler();
    if (handler == nullptr) throw std::bad_alloc();
    handler();
  }
}
#endif

}  // namespace

namespace ds::profile {

AllocationCounts& AllocationCounts::operator+=(const AllocationCounts& other) {
  own += other.own;
  library += other.library;
  return *this;
}

AllocationCounts operator-(const AllocationCounts& later, const AllocationCounts& earlier) {
  return {later.own - earlier.own, later.library - earlier.library};
}

AllocationCounts allocation_counts() {
  return {g_own.load(std::memory_order_relaxed), g_library.load(std::memory_order_relaxed)};
}

Uncounted::Uncounted() { ++g_uncounted; }
Uncounted::~Uncounted() { --g_uncounted; }

}  // namespace ds::profile

#ifndef __SANITIZE_ADDRESS__
// The other forms of operator new and delete end in these.
void* operator new(std::size_t bytes) {
  return take([bytes] { return std::malloc(bytes == 0 ? 1 : bytes); });
}
void* operator new(std::size_t bytes, std::align_val_t alignment) {
  const auto align = static_cast<std::size_t>(alignment);
  const std::size_t whole = (bytes + align - 1) / align * align;
  return take([=] { return std::aligned_alloc(align, whole == 0 ? align : whole); });
}
void operator delete(void* memory) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::align_val_t) noexcept { std::free(memory); }
void operator delete(void* memory, std::size_t, std::align_val_t) noexcept { std::free(memory); }

// In place of the C library's, by its contract; nothing of ours calls it, the matrix library does.
extern "C" int posix_memalign(void** memory, std::size_t alignment, std::size_t bytes) noexcept {
  count(g_library);
  if (alignment < sizeof(void*) || (alignment & (alignment - 1)) != 0) return EINVAL;
  void* const taken = std::aligned_alloc(alignment, bytes);
  if (taken == nullptr) return ENOMEM;
  *memory = taken;
  return 0;
}
#endif
