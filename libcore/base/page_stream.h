// Mapped memory that is larger than the memory there is: brought in ahead of use, given back after.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <thread>
#include <vector>

namespace ds {

// Part of a read-only file mapping. Never other memory: giving it back would lose its contents.
struct PageRange {
  const std::byte* data = nullptr;
  std::size_t bytes = 0;
};

// Drops the pages from this process; the kernel may keep them.
void drop_pages(const PageRange& range);

// Walks over parts (the layers of a model) in an order that is known in advance. One reader thread
// brings the next parts in while the present one is used; what it holds, the part in use included,
// stays below `window` bytes, unless one part alone is larger. A part that was left is dropped from
// this process; the kernel may keep its pages for the next time.
class PageStream {
 public:
  // Ranges of a part are read in the order of their addresses. `loose` ranges are read here and
  // there by others and are dropped with every begin(). The mappings must outlive the stream.
  PageStream(const std::vector<std::vector<PageRange>>& parts, const std::vector<PageRange>& loose,
             std::size_t window);
  ~PageStream();
  PageStream(const PageStream&) = delete;
  PageStream& operator=(const PageStream&) = delete;

  // The parts that will be entered from now on; drops whatever an earlier order still holds.
  void begin(std::span<const std::size_t> order);
  // Waits until the next part of the order is in memory. Parts are left in the order of entering,
  // one at a time.
  void enter();
  void leave();

  std::size_t window() const { return window_; }
  std::size_t largest_part() const;
  // Since construction.
  std::uint64_t bytes_read() const;     // brought in, from disk or from the kernel's cache
  std::size_t peak_held_bytes() const;  // largest amount held at once

 private:
  struct Part {
    std::vector<PageRange> ranges;  // whole pages, by address, no two overlapping
    std::size_t bytes = 0;
    std::size_t loaded = 0;  // bytes of it in memory
    std::int64_t users = 0;  // places of the order that hold it
  };
  void read();
  // Brings in the next piece of `part`; the lock is given up meanwhile.
  void read_piece(std::unique_lock<std::mutex>& lock, Part& part);
  void release(Part& part);

  std::vector<Part> parts_;
  std::vector<PageRange> loose_;
  std::size_t window_;
  std::vector<std::size_t> order_;
  std::size_t next_ = 0;     // place of the order to be entered next
  std::size_t reading_ = 0;  // place of the order the reader works at
  bool inside_ = false;      // between enter and leave
  bool wanted_ = false;      // enter waits
  bool busy_ = false;        // the reader works without the lock
  bool stopping_ = false;
  std::size_t held_ = 0;
  std::size_t peak_held_ = 0;
  std::uint64_t bytes_read_ = 0;
  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::thread reader_;
};

// One walk over an order; does nothing without a stream.
class PageWalk {
 public:
  PageWalk(PageStream* stream, std::span<const std::size_t> order);
  ~PageWalk();  // gives everything back, also when the walk was cut short
  PageWalk(const PageWalk&) = delete;
  PageWalk& operator=(const PageWalk&) = delete;

  void enter();
  void leave();

 private:
  PageStream* stream_;
};

}  // namespace ds
