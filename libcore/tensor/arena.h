// Stack allocation for activations and temporaries.
#pragma once

#include <cstddef>
#include <initializer_list>
#include <map>
#include <memory>
#include <string>
#include <string_view>
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

 private:
  friend class ArenaScope;
  struct Block {
    std::byte* data = nullptr;
    std::size_t size = 0;
    std::size_t committed = 0;  // bytes from the start that may be used
  };
  struct Mark {
    std::size_t block = 0;
    std::size_t offset = 0;
    std::size_t used = 0;
    std::size_t allocations = 0;
  };
  void add_block(std::size_t at_least);
  bool commit(Block& block, std::size_t bytes);
  Mark mark() const { return {block_, offset_, used_, allocations_.size()}; }
  void release(const Mark& mark);

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

}  // namespace ds
