#include "libcore/check/stretches.h"

#include <atomic>
#include <exception>
#include <mutex>
#include <thread>

#include "libcore/base/error.h"
#include "libcore/base/stop.h"

namespace ds::check {
namespace {

// Bytes on their way before they are looked at: enough for a disk to have several requests.
constexpr std::uint64_t kAhead = std::uint64_t{32} << 20;

class Readers {
 public:
  Readers(const std::vector<Stretch>& stretches, const DeepOptions& options,
          const std::function<void(std::size_t, std::span<const std::byte>)>& look)
      : stretches_(stretches), options_(options), look_(look) {
    starts_.reserve(stretches.size());
    for (const Stretch& stretch : stretches) {
      starts_.push_back(total_);
      total_ += stretch.end - stretch.begin;
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
      for (std::size_t i = next_++; i < stretches_.size(); i = next_++) {
        if (stop_requested()) break;
        read(i);
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!failure_) failure_ = std::current_exception();
      next_ = stretches_.size();
    }
  }

  void read(std::size_t i) {
    const Stretch& stretch = stretches_[i];
    ask(i);
    const auto size = static_cast<std::size_t>(stretch.end - stretch.begin);
    look_(i, {stretch.file->data() + stretch.begin, size});
    stretch.file->dont_need(stretch.begin, size);
    const std::uint64_t done = done_ += size;
    if (options_.progress && i % 64 == 0) {
      const std::lock_guard<std::mutex> lock(mutex_);
      options_.progress(done, total_);
    }
  }

  // Has everything read that begins within kAhead of stretch i. Stretches may be of any size: an
  // expert's scales are some bytes.
  void ask(std::size_t i) {
    const std::lock_guard<std::mutex> lock(asking_);
    for (; asked_ < stretches_.size() && starts_[asked_] < starts_[i] + kAhead; ++asked_) {
      const Stretch& next = stretches_[asked_];
      next.file->will_need(next.begin, next.end - next.begin);
    }
  }

  const std::vector<Stretch>& stretches_;
  const DeepOptions& options_;
  const std::function<void(std::size_t, std::span<const std::byte>)>& look_;
  std::vector<std::uint64_t> starts_;  // bytes before each stretch
  std::uint64_t total_ = 0;
  std::mutex asking_;
  std::size_t asked_ = 0;
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
