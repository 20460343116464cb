#include "libcore/base/mapped_reader.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>
#include <utility>

#include "libcore/base/error.h"

namespace ds {
namespace {

[[noreturn]] void fail(const MappedFile& file, std::uint64_t at, const std::string& reason) {
  throw Error(
      ExitCode::kIo,
      file.path().string() + ": cannot be read at byte " + std::to_string(at) + ": " + reason,
      "check the disk it is on, and that nothing writes the file meanwhile");
}

}  // namespace

MappedReader::~MappedReader() {
  if (fd_ >= 0) ::close(fd_);
}

MappedReader::MappedReader(MappedReader&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)),
      device_(std::exchange(other.device_, 0)),
      inode_(std::exchange(other.inode_, 0)) {}

void MappedReader::open(const MappedFile& file) {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  device_ = file.device();
  inode_ = file.inode();
  do {
    fd_ = ::open(file.path().c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  } while (fd_ < 0 && errno == EINTR);
  struct stat info {};
  if (fd_ >= 0 && (::fstat(fd_, &info) != 0 || info.st_dev != device_ || info.st_ino != inode_)) {
    ::close(std::exchange(fd_, -1));
  }
}

void MappedReader::read(const MappedFile& file, std::uint64_t offset, std::size_t size, void* out) {
  if (size == 0) return;
  if (device_ != file.device() || inode_ != file.inode()) open(file);
  if (fd_ < 0) {
    std::memcpy(out, file.data() + offset, size);
    file.dont_need(offset, size);
    return;
  }
  auto* to = static_cast<std::byte*>(out);
  while (size > 0) {
    const ssize_t n = ::pread(fd_, to, size, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(file, offset, std::strerror(errno));
    if (n == 0) fail(file, offset, "it ends there, and did not when it was opened");
    to += n;
    offset += static_cast<std::uint64_t>(n);
    size -= static_cast<std::size_t>(n);
  }
}

}  // namespace ds
