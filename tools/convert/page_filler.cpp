#include "tools/convert/page_filler.h"

#include <fcntl.h>
#include <linux/magic.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace ds::convert {

namespace {

// A userfaultfd that answers for missing pages of [mapping, mapping + bytes), or -1.
int watch_missing_pages(const void* mapping, std::uint64_t bytes) {
  const auto fd =
      static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK | UFFD_USER_MODE_ONLY));
  if (fd < 0) return -1;
  uffdio_api api{};
  api.api = UFFD_API;
  uffdio_register range{};
  range.range.start = reinterpret_cast<std::uintptr_t>(mapping);
  range.range.len = bytes;
  range.mode = UFFDIO_REGISTER_MODE_MISSING;
  const std::uint64_t copy = std::uint64_t{1} << _UFFDIO_COPY;
  if (::ioctl(fd, UFFDIO_API, &api) == 0 && ::ioctl(fd, UFFDIO_REGISTER, &range) == 0 &&
      (range.ioctls & copy) != 0) {
    return fd;
  }
  ::close(fd);
  return -1;
}

}  // namespace

bool lies_in_memory(const std::filesystem::path& path) {
  struct statfs info {};
  return ::statfs(path.c_str(), &info) == 0 && info.f_type == TMPFS_MAGIC;
}

PageFiller::PageFiller(int fd, std::uint64_t bytes)
    : page_(static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE))) {
  bytes_ = bytes / page_ * page_;
  if (bytes_ == 0) return;
  void* mapping = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
  if (mapping == MAP_FAILED) return;
  mapping_ = static_cast<std::byte*>(mapping);
  faults_ = watch_missing_pages(mapping_, bytes_);
}

PageFiller::~PageFiller() {
  if (faults_ >= 0) ::close(faults_);
  if (mapping_ != nullptr) ::munmap(mapping_, bytes_);
}

PageFiller::Filled PageFiller::fill(std::uint64_t offset, const void* data, std::size_t bytes) {
  const std::uint64_t first = (offset + page_ - 1) / page_ * page_;
  const std::uint64_t last = (offset + bytes) / page_ * page_;
  if (faults_ < 0 || first >= last) return {offset, offset};
  std::uint64_t done = first;
  while (done < last) {
    uffdio_copy copy{};
    copy.dst = reinterpret_cast<std::uintptr_t>(mapping_ + done);
    copy.src = reinterpret_cast<std::uintptr_t>(data) + (done - offset);
    copy.len = last - done;
    copy.mode = UFFDIO_COPY_MODE_DONTWAKE;
    const bool whole = ::ioctl(faults_, UFFDIO_COPY, &copy) == 0;
    if (copy.copy > 0) done += static_cast<std::uint64_t>(copy.copy);
    if (!whole && copy.copy <= 0) break;  // of a part that was done the rest is asked for again
  }
  // Pages in the mapping count as memory of this process, and dropping them interrupts the others.
  constexpr std::uint64_t kMostKept = std::uint64_t{8} << 20U;
  if (kept_.fetch_add(done - first) + (done - first) >= kMostKept) {
    kept_ = 0;
    ::madvise(mapping_, bytes_, MADV_DONTNEED);
  }
  return {first, done};
}

}  // namespace ds::convert
