#include "libcore/base/page_stream.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <utility>

namespace ds {
namespace {

// Large enough for the disk to stream, small enough that the window is kept closely.
constexpr std::size_t kPiece = std::size_t{8} << 20;

#ifdef MADV_POPULATE_READ
constexpr int kPopulateRead = MADV_POPULATE_READ;
#else
constexpr int kPopulateRead = 22;  // Linux 5.14; older kernels answer EINVAL
#endif

std::size_t page_size() {
  static const auto size = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  return size;
}

void advise(const std::byte* data, std::size_t bytes, int advice) {
  ::madvise(const_cast<std::byte*>(data), bytes, advice);
}

void populate(const std::byte* data, std::size_t bytes) {
  if (::madvise(const_cast<std::byte*>(data), bytes, kPopulateRead) == 0) return;
  for (std::size_t at = 0; at < bytes; at += page_size()) {
    static_cast<void>(*static_cast<const volatile std::byte*>(data + at));
  }
}

// Whole pages, by address, joined where they touch.
std::vector<PageRange> whole_pages(const std::vector<PageRange>& ranges) {
  const std::size_t page = page_size();
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> spans;
  for (const PageRange& range : ranges) {
    if (range.bytes == 0) continue;
    const auto begin = reinterpret_cast<std::uintptr_t>(range.data);
    spans.emplace_back(begin / page * page, (begin + range.bytes + page - 1) / page * page);
  }
  std::sort(spans.begin(), spans.end());
  std::vector<std::pair<std::uintptr_t, std::uintptr_t>> joined;
  for (const auto& span : spans) {
    if (!joined.empty() && span.first <= joined.back().second) {
      joined.back().second = std::max(joined.back().second, span.second);
    } else {
      joined.push_back(span);
    }
  }
  std::vector<PageRange> pages;
  for (const auto& [begin, end] : joined) {
    pages.push_back({reinterpret_cast<const std::byte*>(begin), end - begin});
  }
  return pages;
}

}  // namespace

void drop_pages(const PageRange& range) {
  for (const PageRange& pages : whole_pages({range})) {
    advise(pages.data, pages.bytes, MADV_DONTNEED);
  }
}

PageStream::PageStream(const std::vector<std::vector<PageRange>>& parts,
                       const std::vector<PageRange>& loose, std::size_t window)
    : loose_(whole_pages(loose)), window_(window) {
  for (const auto& ranges : parts) {
    Part& part = parts_.emplace_back();
    part.ranges = whole_pages(ranges);
    for (const PageRange& range : part.ranges) part.bytes += range.bytes;
  }
  // Otherwise each fault brings in its neighbours.
  for (const PageRange& range : loose_) advise(range.data, range.bytes, MADV_RANDOM);
  reader_ = std::thread([this] { read(); });
}

PageStream::~PageStream() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  reader_.join();
}

void PageStream::begin(std::span<const std::size_t> order) {
  std::unique_lock lock(mutex_);
  order_.clear();
  changed_.wait(lock, [this] { return !busy_; });
  for (Part& part : parts_) {
    part.users = 0;
    release(part);
  }
  for (const PageRange& range : loose_) advise(range.data, range.bytes, MADV_DONTNEED);
  order_.assign(order.begin(), order.end());
  next_ = 0;
  reading_ = 0;
  inside_ = false;
  wanted_ = false;
  lock.unlock();
  changed_.notify_all();
}

void PageStream::enter() {
  std::unique_lock lock(mutex_);
  const Part& part = parts_[order_[next_]];
  wanted_ = true;
  changed_.notify_all();
  changed_.wait(lock, [&] { return reading_ > next_ || part.loaded == part.bytes; });
  wanted_ = false;
  inside_ = true;
}

void PageStream::leave() {
  {
    const std::lock_guard lock(mutex_);
    Part& part = parts_[order_[next_]];
    // The reader may stand at this very place still: it was in memory from an earlier one.
    if (reading_ == next_) {
      ++reading_;
    } else {
      --part.users;
    }
    ++next_;
    inside_ = false;
    if (part.users == 0) release(part);
  }
  changed_.notify_all();
}

void PageStream::release(Part& part) {
  if (part.loaded == 0) return;
  for (const PageRange& range : part.ranges) advise(range.data, range.bytes, MADV_DONTNEED);
  held_ -= part.loaded;
  part.loaded = 0;
}

void PageStream::read() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (reading_ >= order_.size()) {
      changed_.wait(lock);
      continue;
    }
    Part& part = parts_[order_[reading_]];
    if (part.loaded == part.bytes) {
      ++part.users;
      ++reading_;
      changed_.notify_all();
      continue;
    }
    const std::size_t piece = std::min(kPiece, part.bytes - part.loaded);
    const bool forced = reading_ == next_ && (wanted_ || inside_);
    if (!forced && held_ + piece > window_) {
      changed_.wait(lock);
      continue;
    }
    read_piece(lock, part);
  }
}

void PageStream::read_piece(std::unique_lock<std::mutex>& lock, Part& part) {
  std::size_t skip = part.loaded;
  std::size_t at = 0;
  while (skip >= part.ranges[at].bytes) skip -= part.ranges[at++].bytes;
  const PageRange& range = part.ranges[at];
  const std::size_t bytes = std::min(kPiece, range.bytes - skip);
  const std::byte* data = range.data + skip;
  busy_ = true;
  lock.unlock();
  // The disk works on the piece after this one while this one is mapped.
  advise(data, std::min(2 * kPiece, range.bytes - skip), MADV_WILLNEED);
  populate(data, bytes);
  lock.lock();
  busy_ = false;
  part.loaded += bytes;
  held_ += bytes;
  peak_held_ = std::max(peak_held_, held_);
  bytes_read_ += bytes;
  changed_.notify_all();
}

std::size_t PageStream::largest_part() const {
  std::size_t largest = 0;
  for (const Part& part : parts_) largest = std::max(largest, part.bytes);
  return largest;
}

std::uint64_t PageStream::bytes_read() const {
  const std::lock_guard lock(mutex_);
  return bytes_read_;
}

std::size_t PageStream::peak_held_bytes() const {
  const std::lock_guard lock(mutex_);
  return peak_held_;
}

PageWalk::PageWalk(PageStream* stream, std::span<const std::size_t> order) : stream_(stream) {
  if (stream_ != nullptr) stream_->begin(order);
}

PageWalk::~PageWalk() {
  if (stream_ != nullptr) stream_->begin({});
}

void PageWalk::enter() {
  if (stream_ != nullptr) stream_->enter();
}

void PageWalk::leave() {
  if (stream_ != nullptr) stream_->leave();
}

}  // namespace ds
