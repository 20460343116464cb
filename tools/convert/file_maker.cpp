#include "tools/convert/file_maker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <thread>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/base/stop.h"

namespace ds::convert {

namespace {

namespace fs = std::filesystem;

[[noreturn]] void io_error(const fs::path& path, const char* action, int code) {
  throw Error(ExitCode::kIo, fmt::format("{}: {}: {}", path.string(), action, std::strerror(code)));
}

// Where a recipe's bytes go.
struct Sink final : PieceSink {
  void write(std::size_t tensor, std::uint64_t offset, const void* data,
             std::size_t bytes) override {
    file->write(job->offsets.at(tensor) + offset, data, bytes);
    *written += bytes;
  }
  FileInWork* file = nullptr;
  std::atomic<std::uint64_t>* written = nullptr;
  const Job* job = nullptr;
};

}  // namespace

FileInWork::FileInWork(const fs::path& folder, const OutputFile& file)
    : target_(folder / file.name), temporary_(folder / ("." + file.name + ".tmp")) {
  fd_ = ::open(temporary_.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0666);
  if (fd_ < 0) io_error(target_, "cannot be made", errno);
  if (::ftruncate(fd_, static_cast<off_t>(file.bytes)) != 0) fail("cannot be made", errno);
  // A full disk is found now where the file system can tell.
  if (file.bytes > 0) {
    const int code = ::fallocate(fd_, 0, 0, static_cast<off_t>(file.bytes)) == 0 ? 0 : errno;
    if (code == ENOSPC || code == EFBIG) fail("cannot be given its space", code);
  }
  try {
    write(0, file.start.data(), file.start.size());
  } catch (...) {
    ::close(std::exchange(fd_, -1));
    ::unlink(temporary_.c_str());
    throw;
  }
}

FileInWork::~FileInWork() {
  if (fd_ < 0) return;
  ::close(fd_);
  ::unlink(temporary_.c_str());
}

void FileInWork::write(std::uint64_t offset, const void* data, std::size_t bytes) {
  const auto* from = static_cast<const char*>(data);
  const std::uint64_t begin = offset;
  std::size_t left = bytes;
  const std::lock_guard lock(writing_);
  while (left > 0) {
    const ssize_t n = ::pwrite(fd_, from, left, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) io_error(target_, "cannot be written", n < 0 ? errno : EIO);
    from += n;
    offset += static_cast<std::uint64_t>(n);
    left -= static_cast<std::size_t>(n);
  }
  // The disk starts at once: less is left for the flush at the end, and few pages stay dirty.
  ::sync_file_range(fd_, static_cast<off_t>(begin), static_cast<off_t>(bytes),
                    SYNC_FILE_RANGE_WRITE);
}

void FileInWork::commit() {
  if (::fsync(fd_) != 0) io_error(target_, "cannot be flushed to disk", errno);
  if (::close(std::exchange(fd_, -1)) != 0) fail("cannot be closed", errno);
  if (::rename(temporary_.c_str(), target_.c_str()) != 0) fail("cannot be renamed", errno);
}

void FileInWork::fail(const char* action, int code) {
  if (fd_ >= 0) ::close(std::exchange(fd_, -1));
  ::unlink(temporary_.c_str());
  io_error(target_, action, code);
}

FileMaker::FileMaker(const OutputFile& plan, FileInWork& file, std::vector<Workbench>& benches,
                     std::atomic<std::uint64_t>& written)
    : plan_(plan), file_(file), benches_(benches), written_(written) {
  for (const Job& job : plan.jobs) {
    starts_.push_back(pieces_);
    pieces_ += job.recipe->pieces();
  }
}

void FileMaker::run(const std::function<void()>& watch) {
  std::vector<std::thread> threads;
  for (Workbench& bench : benches_) threads.emplace_back([this, &bench] { work(bench); });
  {
    std::unique_lock lock(mutex_);
    while (working_ > 0) {
      ended_.wait_for(lock, std::chrono::milliseconds(100));
      if (stop_requested()) cancelled_ = true;
      lock.unlock();
      watch();
      lock.lock();
    }
  }
  for (std::thread& thread : threads) thread.join();
  if (failure_) std::rethrow_exception(failure_);
  if (cancelled_) throw Error(ExitCode::kInterrupted, "stopped");
}

const Job& FileMaker::job_of(std::size_t piece, std::size_t& within) const {
  const auto next = std::upper_bound(starts_.begin(), starts_.end(), piece);
  const auto at = static_cast<std::size_t>(next - starts_.begin()) - 1;
  within = piece - starts_[at];
  return plan_.jobs[at];
}

void FileMaker::work(Workbench& bench) {
  try {
    Sink sink;
    sink.file = &file_;
    sink.written = &written_;
    while (!cancelled_) {
      const std::size_t piece = next_++;
      if (piece >= pieces_) break;
      std::size_t within = 0;
      const std::size_t ahead = piece + benches_.size();
      if (ahead < pieces_) {
        const Job& later = job_of(ahead, within);
        later.recipe->prefetch(within);
      }
      sink.job = &job_of(piece, within);
      sink.job->recipe->make(within, bench, sink);
    }
  } catch (...) {
    const std::lock_guard lock(mutex_);
    if (!failure_) failure_ = std::current_exception();
    cancelled_ = true;
  }
  const std::lock_guard lock(mutex_);
  --working_;
  ended_.notify_all();
}

}  // namespace ds::convert
