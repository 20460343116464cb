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

// Bytes of input on their way before they are read: enough for a disk to have several requests.
constexpr std::uint64_t kAhead = std::uint64_t{32} << 20U;

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
  fd_ = ::open(temporary_.c_str(), O_CREAT | O_TRUNC | O_RDWR | O_CLOEXEC, 0666);
  if (fd_ < 0) io_error(target_, "cannot be made", errno);
  if (::ftruncate(fd_, static_cast<off_t>(file.bytes)) != 0) fail("cannot be made", errno);
  in_memory_ = lies_in_memory(temporary_);
  // A full disk is found now where the file system can tell. In memory this would make every page
  // beforehand, by one thread.
  if (file.bytes > 0 && !in_memory_) {
    const int code = ::fallocate(fd_, 0, 0, static_cast<off_t>(file.bytes)) == 0 ? 0 : errno;
    if (code == ENOSPC || code == EFBIG) fail("cannot be given its space", code);
  }
  try {
    write_alone(0, file.start.data(), file.start.size());
    if (in_memory_) filler_ = std::make_unique<PageFiller>(fd_, file.bytes);
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
  std::unique_lock lock(writing_, std::try_to_lock);
  if (!lock.owns_lock()) {
    if (filler_ && fill(offset, from, bytes)) return;
    lock.lock();
  }
  write_alone(offset, from, bytes);
  write_edges();
  lock.unlock();
  if (!in_memory_) start_disk(bytes);
}

// Leaves what is no whole page to the thread that writes. False when nothing was done.
bool FileInWork::fill(std::uint64_t offset, const char* data, std::size_t bytes) {
  const auto [begin, end] = filler_->fill(offset, data, bytes);
  if (begin == end) return false;
  const std::lock_guard lock(edges_lock_);
  edges_.push_back({offset, std::string(data, begin - offset)});
  edges_.push_back({end, std::string(data + (end - offset), offset + bytes - end)});
  return true;
}

void FileInWork::write_edges() {
  std::vector<Edge> edges;
  {
    const std::lock_guard lock(edges_lock_);
    edges.swap(edges_);
  }
  for (const Edge& edge : edges) write_alone(edge.offset, edge.bytes.data(), edge.bytes.size());
}

void FileInWork::write_alone(std::uint64_t offset, const char* data, std::size_t bytes) {
  while (bytes > 0) {
    const ssize_t n = ::pwrite(fd_, data, bytes, static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) io_error(target_, "cannot be written", n < 0 ? errno : EIO);
    data += n;
    offset += static_cast<std::uint64_t>(n);
    bytes -= static_cast<std::size_t>(n);
  }
}

// The disk is started early: less is left for the flush at the end, and few pages stay dirty.
void FileInWork::start_disk(std::size_t bytes) {
  constexpr std::size_t kStep = std::size_t{4} << 20U;
  if (since_start_.fetch_add(bytes) + bytes < kStep) return;
  since_start_ = 0;
  ::sync_file_range(fd_, 0, 0, SYNC_FILE_RANGE_WRITE);
}

void FileInWork::commit() {
  write_edges();
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
  std::uint64_t input = 0;
  for (const Job& job : plan.jobs) {
    starts_.push_back(pieces_);
    input_starts_.push_back(input);
    pieces_ += job.recipe->pieces();
    input += job.recipe->input_bytes();
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

// About so many bytes, taking the pieces of a job for equals.
std::uint64_t FileMaker::input_before(std::size_t piece) const {
  std::size_t within = 0;
  const Job& job = job_of(piece, within);
  const auto at = static_cast<std::size_t>(&job - plan_.jobs.data());
  return input_starts_[at] + job.recipe->input_bytes() / job.recipe->pieces() * within;
}

// Has the input of everything read that begins within kAhead of `piece`.
void FileMaker::ask(std::size_t piece) {
  const std::uint64_t until = input_before(piece) + kAhead;
  const std::lock_guard lock(asking_);
  for (; asked_ < pieces_ && input_before(asked_) < until; ++asked_) {
    std::size_t within = 0;
    const Job& job = job_of(asked_, within);
    job.recipe->prefetch(within);
  }
}

void FileMaker::work(Workbench& bench) {
  try {
    Sink sink;
    sink.file = &file_;
    sink.written = &written_;
    while (!cancelled_) {
      const std::size_t piece = next_++;
      if (piece >= pieces_) break;
      ask(piece);
      std::size_t within = 0;
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
