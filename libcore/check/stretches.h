// Reading much data once, by all threads, in bounded memory.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "libcore/base/mapped_file.h"
#include "libcore/check/deep.h"

namespace ds::check {

// Bytes of a mapped file that are looked at by one thread, one piece after the other.
struct Stretch {
  const MappedFile* file = nullptr;
  std::uint64_t begin = 0;  // from the file's first byte
  std::uint64_t end = 0;
  std::size_t unit = 8;  // pieces are whole multiples of it, but for the last
};
// About this many bytes each.
inline constexpr std::size_t kStretchBytes = std::size_t{4} << 20;

// Calls look(i, bytes) for the pieces of every stretch in their order; runs of neighbours are dealt
// to several threads, so give them in the order of the disk. Reads into a buffer of each thread: a
// mapping would cost a fault for every few pages. Throws what `look`
// throws, Error(kIo) for a file that cannot be read or has become shorter, and Error(kInterrupted)
// when a stop was asked for.
void read_stretches(const std::vector<Stretch>& stretches, const DeepOptions& options,
                    const std::function<void(std::size_t, std::span<const std::byte>)>& look);

}  // namespace ds::check
