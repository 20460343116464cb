// How often this program takes memory.
#pragma once

#include <cstdint>

namespace ds::profile {

// By all threads. Both are 0 under the address sanitizer.
struct AllocationCounts {
  std::int64_t own = 0;      // calls of operator new: this program's code and its C++ libraries
  std::int64_t library = 0;  // calls of posix_memalign: the matrix library's buffers
  AllocationCounts& operator+=(const AllocationCounts& other);
};
AllocationCounts operator-(const AllocationCounts& later, const AllocationCounts& earlier);

// Since the start of the program.
AllocationCounts allocation_counts();

// While it lives, what this thread allocates is not counted: the measuring itself.
class Uncounted {
 public:
  Uncounted();
  ~Uncounted();
  Uncounted(const Uncounted&) = delete;
  Uncounted& operator=(const Uncounted&) = delete;
};

}  // namespace ds::profile
