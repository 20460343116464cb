#include "kernels/cpu/thread_team.h"

#include <omp.h>

#include <atomic>
#include <cstddef>
#include <thread>
#include <vector>

namespace ds::kernels::cpu {
namespace {

// About 100 microseconds: longer than the gap between two ops of a small model.
constexpr int kSpins = 4096;

void pause() { __builtin_ia32_pause(); }

constexpr std::size_t kCacheLine = 64;

}  // namespace

struct ThreadTeam::Impl {
  explicit Impl(int count) : threads(count) {}
  void start();
  void work(int me);

  int threads;
  std::vector<std::thread> workers;
  // The job; written before `round` moves on.
  void (*body)(void*, int) = nullptr;
  void* argument = nullptr;
  int team = 0;
  alignas(kCacheLine) std::atomic<int> round{0};  // counts the jobs
  alignas(kCacheLine) std::atomic<int> running{0};
  bool ending = false;
};

void ThreadTeam::Impl::work(int me) {
  omp_set_num_threads(1);
  int seen = 0;
  while (true) {
    for (int i = 0; i < kSpins && round.load(std::memory_order_acquire) == seen; ++i) pause();
    while (round.load(std::memory_order_acquire) == seen) {
      round.wait(seen, std::memory_order_acquire);
    }
    seen = round.load(std::memory_order_acquire);
    if (ending) return;
    if (me < team) body(argument, me);
    if (running.fetch_sub(1, std::memory_order_acq_rel) == 1) running.notify_one();
  }
}

void ThreadTeam::Impl::start() {
  workers.reserve(static_cast<std::size_t>(threads) - 1);
  for (int me = 1; me < threads; ++me) workers.emplace_back([this, me] { work(me); });
}

ThreadTeam::ThreadTeam(int threads) : impl_(std::make_unique<Impl>(threads)) {}

ThreadTeam::~ThreadTeam() {
  Impl& impl = *impl_;
  impl.ending = true;
  impl.round.fetch_add(1, std::memory_order_release);
  impl.round.notify_all();
  for (std::thread& worker : impl.workers) worker.join();
}

void ThreadTeam::run(int team, void (*body)(void*, int), void* argument) {
  Impl& impl = *impl_;
  const int before = omp_get_max_threads();
  omp_set_num_threads(1);
  if (team == 1) {
    body(argument, 0);
  } else {
    if (impl.workers.empty()) impl.start();
    impl.body = body;
    impl.argument = argument;
    impl.team = team;
    // Every worker answers every round, so that none can still be reading the last job.
    impl.running.store(impl.threads - 1, std::memory_order_relaxed);
    impl.round.fetch_add(1, std::memory_order_release);
    impl.round.notify_all();
    body(argument, 0);
    for (int i = 0; i < kSpins && impl.running.load(std::memory_order_acquire) != 0; ++i) pause();
    for (auto left = impl.running.load(std::memory_order_acquire); left != 0;
         left = impl.running.load(std::memory_order_acquire)) {
      impl.running.wait(left, std::memory_order_acquire);
    }
  }
  omp_set_num_threads(before);
}

}  // namespace ds::kernels::cpu
