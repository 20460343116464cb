#include "libcore/base/ranges.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <random>
#include <stdexcept>
#include <utility>
#include <vector>

#include "libcore/base/sort_runs.h"

using namespace ds;

TEST_CASE("runs: sorted as std::stable_sort does, whatever the runs are") {
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    const std::size_t size = random() % 40;
    std::vector<std::pair<unsigned, std::size_t>> values;  // the second tells equal ones apart
    const unsigned kinds = 1 + random() % 30;
    for (std::size_t i = 0; i < size; ++i) values.emplace_back(random() % kinds, i);
    // A few ascending runs, as headers have.
    if (round % 2 == 0) {
      const auto cut = values.begin() + static_cast<std::ptrdiff_t>(size / 3);
      std::sort(values.begin(), cut);
      std::sort(cut, values.end());
    }
    const auto less = [](const auto& a, const auto& b) { return a.first < b.first; };
    auto expected = values;
    std::stable_sort(expected.begin(), expected.end(), less);
    sort_runs(values, less);
    CHECK(values == expected);
  }
}

TEST_CASE("ranges: every item once, also with one range; what is thrown arrives") {
  for (const std::size_t count : {0u, 1u, 2u, 7u, 1000u}) {
    for (const std::size_t least : {0u, 1u, 3u, 5000u}) {
      std::vector<std::atomic<int>> met(count);
      for_ranges(count, least, [&](std::size_t begin, std::size_t end) {
        for (std::size_t i = begin; i < end; ++i) ++met[i];
      });
      CHECK(std::all_of(met.begin(), met.end(), [](const auto& times) { return times == 1; }));
    }
  }
  CHECK_THROWS_AS(for_ranges(100, 1,
                             [](std::size_t, std::size_t end) {
                               if (end == 100) throw std::runtime_error("the last range");
                             }),
                  std::runtime_error);
}
