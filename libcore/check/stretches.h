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

// Bytes of a mapped file that are looked at in one go.
struct Stretch {
  const MappedFile* file = nullptr;
  std::uint64_t begin = 0;  // from the file's first byte
  std::uint64_t end = 0;
};
// About this many bytes each.
inline constexpr std::size_t kStretchBytes = std::size_t{4} << 20;

// Calls look(i, bytes) once for each stretch, from several threads, about in their order; the next
// ones are on their way meanwhile, and pages that were looked at are dropped. Throws what `look`
// throws, and Error(kInterrupted) when a stop was asked for.
void read_stretches(const std::vector<Stretch>& stretches, const DeepOptions& options,
                    const std::function<void(std::size_t, std::span<const std::byte>)>& look);

}  // namespace ds::check
