// How the ops split their work over threads: always statically, so that the same sizes and the same
// number of threads give the same bits, and not at all where a parallel region costs more than it
// saves.
#pragma once

#include <cstdint>

#include "kernels/context.h"

namespace ds::kernels::DSK_ISA {

inline std::int64_t least(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// Threads for `work` element visits of a few instructions each.
inline int threads_for(const CpuContext& context, std::int64_t work) {
  constexpr std::int64_t kSmallest = 16384;
  return work < kSmallest ? 1 : context.threads();
}

// Grows the scratch of threads [0, threads) before a parallel region: an allocation that fails
// inside one could not be reported.
inline void reserve_scratch(CpuContext& context, int threads, std::size_t bytes) {
  for (int t = 0; t < threads; ++t) context.scratch(t, bytes);
}

// Calls f(me, team) on `team` threads at the same time.
template <class F>
void parallel(CpuContext& context, int team, F f) {
  struct Job {
    F& f;
    int team;
  } job{f, team};
  context.run_team(
      team,
      [](void* argument, int me) {
        Job& own = *static_cast<Job*>(argument);
        own.f(me, own.team);
      },
      &job);
}
// Calls f(i) for i in [0, count), each thread a contiguous share.
template <class F>
void parallel_for(CpuContext& context, int team, std::int64_t count, F f) {
  parallel(context, team, [&f, count](int me, int of) {
    const std::int64_t end = count * (me + 1) / of;
    for (std::int64_t i = count * me / of; i < end; ++i) f(i);
  });
}

// ++count, whoever else does so at the same time.
inline void count_one(int& count) { __atomic_fetch_add(&count, 1, __ATOMIC_RELAXED); }

// A matrix cut into pieces of at most kPiece neighbouring elements of one row; rows that follow
// each other without a gap count as one row.
class Pieces {
 public:
  static constexpr std::int64_t kPiece = 8192;
  Pieces(std::int64_t rows, std::int64_t cols, bool contiguous)
      : cols_(contiguous ? rows * cols : cols),
        per_row_((cols_ + kPiece - 1) / kPiece),
        count_(per_row_ * (contiguous ? 1 : rows)) {}
  std::int64_t count() const { return count_; }
  std::int64_t row(std::int64_t piece) const { return piece / per_row_; }
  std::int64_t begin(std::int64_t piece) const { return piece % per_row_ * kPiece; }
  std::int64_t size(std::int64_t piece) const { return least(kPiece, cols_ - begin(piece)); }

 private:
  std::int64_t cols_, per_row_, count_;
};

}  // namespace ds::kernels::DSK_ISA
