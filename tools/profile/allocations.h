// How often this program takes memory.
#pragma once

#include <cstdint>

namespace ds::profile {

// Calls of operator new by all threads since the start: this program's own code and its C++
// libraries. What C libraries take by malloc is not in it. 0 under the address sanitizer.
std::int64_t allocation_count();

}  // namespace ds::profile
