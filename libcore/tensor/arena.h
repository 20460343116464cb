// Stack allocation for activations and temporaries.
#pragma once

#include <cassert>
#include <cstddef>
#include <initializer_list>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

#include "kernels/view.h"

namespace ds {

using kernels::DType;
using kernels::View;

// Last in, first out. Address space is reserved in one piece and filled as it is needed; memory is
// kept for reuse, so the steady state allocates nothing; contents are uninitialised. Every
// allocation has a name: the peak is explained by purpose.
class Arena {
 public:
  explicit Arena(std::string name);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Throws Error(kResources) naming the allocation when memory is exhausted.
  View allocate(std::string_view name, DType dtype, std::initializer_list<std::int64_t> extents);
  // The same for `bytes` bytes, 64-byte aligned.
  void* allocate_bytes(std::string_view name, std::size_t bytes);

  std::size_t used_bytes() const { return used_; }
  std::size_t peak_bytes() const { return peak_; }
  // The peak starts again at what is in use.
  void reset_peak();
  // Bytes by allocation name at the moment of the peak.
  std::map<std::string, std::size_t> peak_by_name() const;

  struct Allocation {
    std::string_view name;
    std::size_t bytes;
  };
  // What is in use, oldest first.
  const std::vector<Allocation>& allocations() const { return allocations_; }

  // Where allocating stands. Giving back to a mark frees all that came after it; a C++ scope is
  // ArenaScope's business.
  struct Mark {
    std::size_t block = 0;
    std::size_t offset = 0;
    std::size_t used = 0;
    std::size_t allocations = 0;
  };
  Mark mark() const { return {block_, offset_, used_, allocations_.size()}; }
  void release(const Mark& mark);

 private:
  struct Block {
    std::byte* data = nullptr;
    std::size_t size = 0;
    std::size_t committed = 0;  // bytes from the start that may be used
  };
  void add_block(std::size_t at_least);
  bool commit(Block& block, std::size_t bytes);

  std::string name_;
  std::vector<Block> blocks_;
  std::size_t block_ = 0;   // block in use
  std::size_t offset_ = 0;  // first free byte in it
  std::size_t used_ = 0;
  std::size_t peak_ = 0;
  std::vector<Allocation> allocations_;
  std::vector<Allocation> at_peak_;
};

// Gives back everything allocated since its construction.
class ArenaScope {
 public:
  explicit ArenaScope(Arena& arena) : arena_(arena), mark_(arena.mark()) {}
  ~ArenaScope() { arena_.release(mark_); }
  ArenaScope(const ArenaScope&) = delete;
  ArenaScope& operator=(const ArenaScope&) = delete;

 private:
  Arena& arena_;
  Arena::Mark mark_;
};

// A list in an arena, of at most as many elements as it was made for: what a step needs besides
// tensors (the products of a call, what layers keep), so that the steady state allocates nothing.
// Copies share the elements, which live as long as the arena's scope and are never destroyed.
template <class T>
class ArenaList {
 public:
  static_assert(std::is_trivially_destructible_v<T>);
  ArenaList() = default;  // has room for nothing
  ArenaList(Arena& arena, std::string_view name, std::size_t capacity)
      : data_(static_cast<T*>(arena.allocate_bytes(name, capacity * sizeof(T)))),
        capacity_(capacity) {}

  T& push_back(const T& value) {
    assert(size_ < capacity_);
    return *std::construct_at(data_ + size_++, value);
  }
  // Then `size` default elements follow those that are there.
  void append(std::size_t size) {
    for (std::size_t i = 0; i < size; ++i) push_back(T());
  }
  void pop_back() {
    assert(size_ > 0);
    --size_;
  }
  void clear() { size_ = 0; }
  bool empty() const { return size_ == 0; }
  std::size_t size() const { return size_; }
  T* begin() const { return data_; }
  T* end() const { return data_ + size_; }
  T& operator[](std::size_t i) const {
    assert(i < size_);
    return data_[i];
  }
  T& back() const { return (*this)[size_ - 1]; }
  std::span<T> span() const { return {data_, size_}; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace ds
