// Reading stretches of a mapped file into memory of the caller's.
#pragma once

#include <cstddef>
#include <cstdint>

#include "libcore/base/mapped_file.h"

namespace ds {

// For bytes that are looked at once: a small buffer that is used again stays in a core's cache,
// where touching the mapping costs a fault for every few pages and their removal afterwards. Keeps
// the file it read last open. Not to be used by two threads at once.
class MappedReader {
 public:
  MappedReader() = default;
  ~MappedReader();
  MappedReader(MappedReader&& other) noexcept;
  MappedReader& operator=(MappedReader&&) = delete;

  // Copies bytes [offset, offset + size) of `file`, which must lie in it, to `out`: those that were
  // mapped, also where another file has its name by now. Throws Error(kIo) naming the file when it
  // cannot be read, or has become shorter.
  void read(const MappedFile& file, std::uint64_t offset, std::size_t size, void* out);

 private:
  void open(const MappedFile& file);
  int fd_ = -1;  // of the file below, -1 when its name does not lead to it any more
  std::uint64_t device_ = 0, inode_ = 0;
};

}  // namespace ds
