#include "libcore/base/mapped_file.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

#include "libcore/base/error.h"

namespace ds {
namespace {

[[noreturn]] void fail(const std::filesystem::path& path, const std::string& reason) {
  throw Error(ExitCode::kIo, path.string() + ": cannot be read: " + reason,
              "check that the path is right and that you may read it");
}

}  // namespace

MappedFile::MappedFile(const std::filesystem::path& path) : path_(path) {
  // O_NONBLOCK: opening a named pipe would otherwise wait for its writer.
  int fd = -1;
  do {
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (fd < 0 && errno == EINTR);
  if (fd < 0) fail(path, std::strerror(errno));
  struct stat info {};
  if (::fstat(fd, &info) != 0) {
    const int code = errno;
    ::close(fd);
    fail(path, std::strerror(code));
  }
  if (!S_ISREG(info.st_mode)) {
    ::close(fd);
    fail(path, S_ISDIR(info.st_mode) ? "it is a folder" : "it is not a regular file");
  }
  device_ = info.st_dev;
  inode_ = info.st_ino;
  if (info.st_size > 0) {
    void* mapping =
        ::mmap(nullptr, static_cast<std::size_t>(info.st_size), PROT_READ, MAP_SHARED, fd, 0);
    if (mapping == MAP_FAILED) {
      const int code = errno;
      ::close(fd);
      fail(path, std::string("mapping it failed: ") + std::strerror(code));
    }
    data_ = static_cast<const std::byte*>(mapping);
    size_ = static_cast<std::size_t>(info.st_size);
  }
  ::close(fd);
}

MappedFile::~MappedFile() { unmap(); }

MappedFile::MappedFile(MappedFile&& other) noexcept
    : path_(std::move(other.path_)),
      device_(std::exchange(other.device_, 0)),
      inode_(std::exchange(other.inode_, 0)),
      data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)) {}

MappedFile& MappedFile::operator=(MappedFile&& other) noexcept {
  if (this != &other) {
    unmap();
    path_ = std::move(other.path_);
    device_ = std::exchange(other.device_, 0);
    inode_ = std::exchange(other.inode_, 0);
    data_ = std::exchange(other.data_, nullptr);
    size_ = std::exchange(other.size_, 0);
  }
  return *this;
}

void MappedFile::unmap() noexcept {
  if (data_ != nullptr) ::munmap(const_cast<std::byte*>(data_), size_);
  data_ = nullptr;
  size_ = 0;
}

void MappedFile::advise(std::size_t offset, std::size_t length, int advice) const {
  if (offset >= size_ || length == 0) return;
  length = std::min(length, size_ - offset);
  const auto page = static_cast<std::size_t>(::sysconf(_SC_PAGESIZE));
  const std::size_t start = offset / page * page;
  ::madvise(const_cast<std::byte*>(data_) + start, length + (offset - start), advice);
}

void MappedFile::will_need(std::size_t offset, std::size_t length) const {
  advise(offset, length, MADV_WILLNEED);
}

void MappedFile::dont_need(std::size_t offset, std::size_t length) const {
  advise(offset, length, MADV_DONTNEED);
}

}  // namespace ds
