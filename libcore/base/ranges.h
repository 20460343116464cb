// Work over many items, cut into one range a CPU.
#pragma once

#include <algorithm>
#include <cstddef>
#include <exception>
#include <thread>
#include <vector>

#include "libcore/base/system.h"

namespace ds {

// Calls f(begin, end) for ranges that together are [0, count), each on a thread of its own; on the
// caller's alone when a range would have fewer than `least` items. Rethrows what an f threw.
template <class F>
void for_ranges(std::size_t count, std::size_t least, F f) {
  const std::size_t ranges = std::clamp<std::size_t>(count / std::max<std::size_t>(least, 1), 1,
                                                     static_cast<std::size_t>(usable_cpus()));
  std::vector<std::exception_ptr> failures(ranges);
  const auto work = [&](std::size_t range) {
    try {
      f(count * range / ranges, count * (range + 1) / ranges);
    } catch (...) {
      failures[range] = std::current_exception();
    }
  };
  {
    std::vector<std::jthread> others;
    for (std::size_t range = 1; range < ranges; ++range) others.emplace_back(work, range);
    work(0);
  }
  for (const std::exception_ptr& failure : failures) {
    if (failure) std::rethrow_exception(failure);
  }
}

}  // namespace ds
