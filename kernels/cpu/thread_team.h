// The threads of a CPU context.
#pragma once

#include <memory>

namespace ds::kernels::cpu {

// Fixed threads that wait for work: a short spin, then asleep. The spin is short because the
// machine may be shared: a team of OpenMP spins for milliseconds at every barrier, and beside other
// work a step took forty times as long for it. Threads start with the first run(). Not shared
// between callers; bodies do not throw and do not call run().
class ThreadTeam {
 public:
  explicit ThreadTeam(int threads);
  ~ThreadTeam();
  ThreadTeam(const ThreadTeam&) = delete;
  ThreadTeam& operator=(const ThreadTeam&) = delete;

  // Calls body(argument, me) for every me in [0, team) at the same time, 0 on the calling thread,
  // and returns when all have returned. 1 <= team <= threads. Inside, the matrix library sees one
  // OpenMP thread.
  void run(int team, void (*body)(void*, int), void* argument);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace ds::kernels::cpu
