// Sorting of what is nearly sorted already.
#pragma once

#include <algorithm>
#include <cstddef>
#include <iterator>
#include <utility>
#include <vector>

namespace ds {

// Stable sort of `values` by `less`, which merges their ascending runs: n comparisons when they are
// sorted, n log(runs) otherwise.
template <class T, class Less>
void sort_runs(std::vector<T>& values, Less less) {
  std::vector<std::size_t> ends;  // of the runs
  for (std::size_t i = 1; i < values.size(); ++i) {
    if (less(values[i], values[i - 1])) ends.push_back(i);
  }
  if (ends.empty()) return;
  ends.push_back(values.size());
  std::vector<T> merged(values.size());
  while (ends.size() > 1) {
    std::vector<std::size_t> left;
    std::size_t begin = 0;
    for (std::size_t run = 0; run < ends.size(); run += 2) {
      const std::size_t middle = ends[run];
      const std::size_t end = run + 1 < ends.size() ? ends[run + 1] : middle;
      const auto at = [&](std::size_t place) {
        return std::make_move_iterator(values.begin() + static_cast<std::ptrdiff_t>(place));
      };
      std::merge(at(begin), at(middle), at(middle), at(end),
                 merged.begin() + static_cast<std::ptrdiff_t>(begin), less);
      left.push_back(end);
      begin = end;
    }
    std::swap(values, merged);
    ends = std::move(left);
  }
}

}  // namespace ds
