// Writing to a file in memory with several threads at once.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace ds::convert {

// Of a file on tmpfs: the kernel lets one thread at a time into write(), but any number of them
// fill pages that are still missing (UFFDIO_COPY into a mapping of the file).
class PageFiller {
 public:
  // `fd` is open for reading and writing, its file lies in memory and has `bytes` bytes. Where the
  // system does not allow userfaultfd, fill() does nothing.
  PageFiller(int fd, std::uint64_t bytes);
  ~PageFiller();
  PageFiller(const PageFiller&) = delete;
  PageFiller& operator=(const PageFiller&) = delete;

  // Copies `data` to the whole pages of [offset, offset + bytes), none of which was written before.
  // Bytes [begin, end) of the file, a part of those, are then done, possibly none: pages at the
  // edges that are not covered whole, and whatever the kernel refused (memory is full, say), are
  // left to write(). Any number of threads.
  struct Filled {
    std::uint64_t begin = 0, end = 0;
  };
  Filled fill(std::uint64_t offset, const void* data, std::size_t bytes);

 private:
  std::byte* mapping_ = nullptr;
  std::uint64_t bytes_ = 0;
  std::uint64_t page_ = 0;
  std::atomic<std::uint64_t> kept_{0};  // about as many bytes are in the mapping
  int faults_ = -1;                     // the userfaultfd
};

// Whether the file or folder lies in memory (tmpfs), where no space is set aside, nothing is
// flushed and nobody waits for a disk.
bool lies_in_memory(const std::filesystem::path& path);

}  // namespace ds::convert
