#include "libcore/base/atomic_write.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "libcore/base/error.h"

namespace ds {
namespace {

// Linux writes at most 0x7ffff000 bytes a call; smaller pieces also let a signal be noticed.
constexpr std::size_t kLargestWrite = std::size_t{1} << 28;
constexpr std::size_t kLongestName = 255;

std::string hint_for(int code) {
  switch (code) {
    case ENOSPC:
      return "free space on that disk or choose another folder";
    case EDQUOT:
      return "your quota on that disk is used up: free space or choose another folder";
    case EFBIG:
      return "the file is larger than this file system or the process limit (ulimit -f) allows";
    case EACCES:
    case EPERM:
    case EROFS:
      return "choose a folder in which you may write";
    case ENOENT:
      return "create the folder first";
    default:
      return "";
  }
}

std::filesystem::path folder_of(const std::filesystem::path& target) {
  const auto folder = target.parent_path();
  return folder.empty() ? std::filesystem::path(".") : folder;
}

int open_retry(const char* path, int flags, mode_t mode = 0) {
  int fd = -1;
  do {
    fd = ::open(path, flags, mode);
  } while (fd < 0 && errno == EINTR);
  return fd;
}

}  // namespace

AtomicFile::AtomicFile(const std::filesystem::path& target) : target_(target) {
  static std::atomic<unsigned> counter{0};
  const std::string name = target_.filename().string();
  if (name.empty() || name == "." || name == "..") fail("be written", EISDIR);
  // A folder in the target's place is found now rather than after all the work.
  struct stat info {};
  if (::stat(target_.c_str(), &info) == 0 && S_ISDIR(info.st_mode)) fail("be written", EISDIR);
  if (name.size() > kLongestName) fail("be written", ENAMETOOLONG);
  for (;;) {
    const std::string suffix = fmt::format(".tmp-{}-{}", ::getpid(), counter.fetch_add(1));
    const std::size_t room = kLongestName - 1 - suffix.size();
    temporary_ = folder_of(target_) / fmt::format(".{}{}", name.substr(0, room), suffix);
    fd_ = open_retry(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    if (fd_ >= 0) return;
    // Left behind by a dead process that had our number: take the next name.
    if (errno != EEXIST) break;
  }
  const int code = errno;
  temporary_.clear();
  fail("be created", code);
}

AtomicFile::~AtomicFile() { discard(); }

void AtomicFile::discard() noexcept {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  if (!temporary_.empty()) ::unlink(temporary_.c_str());
  temporary_.clear();
}

void AtomicFile::fail(const char* action, int code) {
  failed_ = true;
  discard();
  throw Error(ExitCode::kIo, target_.string() + ": cannot " + action + ": " + std::strerror(code),
              hint_for(code));
}

void AtomicFile::reserve(std::uint64_t size) {
  if (failed_ || fd_ < 0 || size == 0) return;
  if (size > static_cast<std::uint64_t>(INT64_MAX)) fail("be written", EFBIG);
  // With FALLOC_FL_KEEP_SIZE the kernel does not look at the limit.
  rlimit limit{};
  if (::getrlimit(RLIMIT_FSIZE, &limit) == 0 && size > limit.rlim_cur) fail("be written", EFBIG);
  int result = 0;
  do {
    result = ::fallocate(fd_, FALLOC_FL_KEEP_SIZE, 0, static_cast<off_t>(size));
  } while (result != 0 && errno == EINTR);
  if (result != 0 && (errno == ENOSPC || errno == EDQUOT || errno == EFBIG)) {
    fail("be written", errno);
  }
}

void AtomicFile::write(const void* data, std::size_t size) {
  if (failed_ || fd_ < 0) fail("be written", EBADF);
  const char* from = static_cast<const char*>(data);
  while (size > 0) {
    const ssize_t done = ::write(fd_, from, std::min(size, kLargestWrite));
    if (done < 0) {
      if (errno == EINTR) continue;
      fail("be written", errno);
    }
    if (done == 0) fail("be written", ENOSPC);
    from += done;
    size -= static_cast<std::size_t>(done);
  }
}

void AtomicFile::commit() {
  if (failed_ || fd_ < 0) fail("be written", EBADF);
  int result = 0;
  do {
    result = ::fsync(fd_);
  } while (result != 0 && errno == EINTR);
  // EINVAL: the file system has no such operation; everything else means lost data.
  if (result != 0 && errno != EINVAL) fail("be flushed to disk", errno);
  // Linux closes the descriptor even when close reports EINTR.
  if (::close(std::exchange(fd_, -1)) != 0 && errno != EINTR) fail("be closed", errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("be renamed into place", errno);
  temporary_.clear();
  sync_folder(folder_of(target_));
}

void write_file(const std::filesystem::path& path, std::string_view text) {
  AtomicFile file(path);
  file.write(text);
  file.commit();
}

std::string read_file(const std::filesystem::path& path) {
  const auto fail = [&path](int code) {
    throw Error(ExitCode::kIo, path.string() + ": cannot be read: " + std::strerror(code),
                "check that the path is right and that you may read it");
  };
  const int fd = open_retry(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0) fail(errno);
  std::string text;
  struct stat info {};
  if (::fstat(fd, &info) == 0 && S_ISREG(info.st_mode)) {
    text.reserve(static_cast<std::size_t>(info.st_size));
  }
  char buffer[1 << 16];
  for (;;) {
    const ssize_t got = ::read(fd, buffer, sizeof buffer);
    if (got == 0) break;
    if (got < 0) {
      if (errno == EINTR) continue;
      const int code = errno;
      ::close(fd);
      fail(code);
    }
    text.append(buffer, static_cast<std::size_t>(got));
  }
  ::close(fd);
  return text;
}

void sync_folder(const std::filesystem::path& folder) {
  const auto fail = [&folder](int code) {
    throw Error(ExitCode::kIo,
                folder.string() + ": cannot be flushed to disk: " + std::strerror(code));
  };
  const int fd = open_retry(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) {
    // A folder one may write in but not list (mode -wx) cannot be flushed; its files are whole.
    if (errno == EACCES) return;
    fail(errno);
  }
  int result = 0;
  do {
    result = ::fsync(fd);
  } while (result != 0 && errno == EINTR);
  const int code = errno;
  ::close(fd);
  if (result != 0 && code != EINVAL && code != ENOTSUP) fail(code);
}

}  // namespace ds
