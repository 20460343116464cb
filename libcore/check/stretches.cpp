#include "libcore/check/stretches.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "libcore/base/error.h"
#include "libcore/base/mapped_reader.h"
#include "libcore/base/stop.h"

namespace ds::check {
namespace {

// What a thread takes at a time. Long enough for the kernel to see a file read in order and to read
// ahead of it, in larger requests than being asked for a range brings (docs/performance.md).
constexpr std::uint64_t kRunBytes = std::uint64_t{64} << 20;
constexpr std::uint64_t kRunsPerThread = 8;  // so that the threads end together

// What a thread reads at a time: it stays in the core's cache until it was looked at.
constexpr std::size_t kPieceBytes = std::size_t{256} << 10;

class Readers {
 public:
  Readers(const std::vector<Stretch>& stretches, const DeepOptions& options,
          const std::function<void(std::size_t, std::span<const std::byte>)>& look)
      : stretches_(stretches), options_(options), look_(look) {
    for (const Stretch& stretch : stretches) total_ += stretch.end - stretch.begin;
    const auto threads = static_cast<std::uint64_t>(options.threads);
    const std::uint64_t most = std::min(kRunBytes, total_ / (kRunsPerThread * threads));
    std::uint64_t size = 0;
    for (std::size_t i = 0; i < stretches.size(); ++i) {
      if (i == 0 || size >= most) {
        runs_.push_back(i);
        size = 0;
      }
      size += stretches[i].end - stretches[i].begin;
    }
  }

  void run() {
    std::vector<std::thread> others;
    for (int i = 1; i < options_.threads; ++i) others.emplace_back([this] { work(); });
    work();
    for (std::thread& other : others) other.join();
    if (failure_) std::rethrow_exception(failure_);
    if (stop_requested()) throw Error(ExitCode::kInterrupted, "interrupted while reading data");
  }

 private:
  void work() {
    try {
      MappedReader reader;
      std::vector<std::byte> buffer(kPieceBytes);
      for (std::size_t run = next_++; run < runs_.size(); run = next_++) {
        const std::size_t end = run + 1 < runs_.size() ? runs_[run + 1] : stretches_.size();
        for (std::size_t i = runs_[run]; i < end; ++i) {
          if (stop_requested()) return;
          read(i, reader, buffer.data());
        }
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      next_ = runs_.size();
    }
  }

  void read(std::size_t i, MappedReader& reader, std::byte* buffer) {
    const Stretch& stretch = stretches_[i];
    const std::size_t piece = kPieceBytes / stretch.unit * stretch.unit;
    for (std::uint64_t at = stretch.begin; at < stretch.end; at += piece) {
      const auto size = static_cast<std::size_t>(std::min<std::uint64_t>(piece, stretch.end - at));
      reader.read(*stretch.file, at, size, buffer);
      look_(i, {buffer, size});
    }
    const std::uint64_t done = done_ += stretch.end - stretch.begin;
    if (options_.progress && i % 64 == 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      options_.progress(done, total_);
    }
  }

  const std::vector<Stretch>& stretches_;
  const DeepOptions& options_;
  const std::function<void(std::size_t, std::span<const std::byte>)>& look_;
  std::vector<std::size_t> runs_;  // the first stretch of each
  std::uint64_t total_ = 0;
  std::atomic<std::size_t> next_{0};
  std::atomic<std::uint64_t> done_{0};
  std::mutex mutex_;
  std::exception_ptr failure_;
};

}  // namespace

void read_stretches(const std::vector<Stretch>& stretches, const DeepOptions& options,
                    const std::function<void(std::size_t, std::span<const std::byte>)>& look) {
  Readers(stretches, options, look).run();
}

}  // namespace ds::check
