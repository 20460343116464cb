// Truncation lengths, packs and batches.
#include <doctest/doctest.h>

#include <algorithm>
#include <numeric>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/data/dataset.h"
#include "tests/support/buffers.h"

namespace ds {
namespace {

Example example(std::int64_t length, std::int32_t first = 0) {
  Example result;
  result.ids.resize(static_cast<std::size_t>(length));
  std::iota(result.ids.begin(), result.ids.end(), first);
  result.labels = result.ids;
  result.line = length;
  return result;
}

std::vector<std::int64_t> counting(std::size_t n) {
  std::vector<std::int64_t> order(n);
  std::iota(order.begin(), order.end(), 0);
  return order;
}

}  // namespace

TEST_CASE("FR-021: the proportional rule's published lengths") {
  struct Case {
    std::int64_t source, target, limit, kept_source, kept_target;
  };
  const Case cases[] = {
      {100, 100, 50, 25, 25},
      {10, 100, 50, 10, 40},
      {100, 10, 50, 40, 10},
      // Fits: nothing is cut. Uneven: the target's share is rounded down. Nothing is left.
      {10, 10, 50, 10, 10},
      {25, 25, 50, 25, 25},
      {7, 3, 5, 4, 1},
      {3, 7, 5, 2, 3},
      {64, 1, 64, 63, 1},
      {5, 5, 1, 1, 0},
      {0, 9, 4, 0, 4},
      {9, 0, 4, 4, 0},
      {0, 0, 4, 0, 0},
  };
  for (const Case& c : cases) {
    CAPTURE(c.source);
    CAPTURE(c.target);
    CAPTURE(c.limit);
    const KeptLengths kept = proportional_lengths(c.source, c.target, c.limit);
    CHECK(kept.source == c.kept_source);
    CHECK(kept.target == c.kept_target);
  }
}

TEST_CASE("the proportional rule never exceeds the limit and cuts nothing that fits") {
  for (std::int64_t source = 0; source < 30; ++source) {
    for (std::int64_t target = 0; target < 30; ++target) {
      for (std::int64_t limit = 1; limit < 70; ++limit) {
        const KeptLengths kept = proportional_lengths(source, target, limit);
        const std::int64_t total = kept.source + kept.target;
        const bool sound = kept.source >= 0 && kept.target >= 0 && kept.source <= source &&
                           kept.target <= target && total == std::min(limit, source + target);
        if (!sound) FAIL(source, " ", target, " ", limit);
      }
    }
  }
}

TEST_CASE("FR-023: a batch keeps its segments apart") {
  TokenBatch batch;
  Example first;
  first.ids = {0, 7, 8, 1};
  first.labels = {-100, -100, 8, 1};
  first.line = 3;
  Example second;
  second.ids = {0, 9, 1};
  second.labels = {0, 9, 1};  // the first label is never used
  second.line = 5;
  append_segment(batch, first);
  append_segment(batch, second);
  CHECK(batch.ids == std::vector<std::int32_t>{0, 7, 8, 1, 0, 9, 1});
  CHECK(batch.positions == std::vector<std::int32_t>{0, 1, 2, 3, 0, 1, 2});
  // The last token of the first row does not predict the second row's first.
  CHECK(batch.targets == std::vector<std::int32_t>{-100, 8, 1, -100, 9, 1, -100});
  CHECK(batch.segments == std::vector<std::int32_t>{0, 4, 7});
  CHECK(batch.lines == std::vector<std::int64_t>{3, 5});
  CHECK(batch.tokens() == 7);
  // FR-024, the batch's side: targets of a batch are those of its rows, so sums over a window do
  // not depend on how rows are spread over batches.
  CHECK(batch.target_count() == first.target_count() + second.target_count());
  CHECK(batch.target_count() == 4);
}

TEST_CASE("rows without ids, or with labels of another length, are refused") {
  TokenBatch batch;
  CHECK_THROWS_AS(append_segment(batch, Example()), Error);
  Example uneven = example(3);
  uneven.labels.pop_back();
  CHECK_THROWS_AS(append_segment(batch, uneven), Error);
  CHECK(batch.tokens() == 0);
}

TEST_CASE("best-fit decreasing, by hand") {
  // Packs of 10: 6 opens one, 5 another, 4 fills the first, 3 and 2 the second.
  std::vector<Example> examples;
  for (const std::int64_t length : {2, 3, 4, 5, 6}) examples.push_back(example(length));
  const auto packs = pack_examples(examples, counting(5), 10);
  CHECK(packs == std::vector<std::vector<std::int64_t>>{{0, 1, 3}, {2, 4}});
  // Another order: the same groups, arranged by it.
  const auto turned = pack_examples(examples, {4, 3, 2, 1, 0}, 10);
  CHECK(turned == std::vector<std::vector<std::int64_t>>{{4, 2}, {3, 1, 0}});
  // A subset.
  CHECK(pack_examples(examples, {4}, 6) == std::vector<std::vector<std::int64_t>>{{4}});
  CHECK(pack_examples(examples, {}, 6).empty());
  CHECK_THROWS_AS(pack_examples(examples, counting(5), 5), Error);
}

TEST_CASE("packs hold every row once, never overflow, and are the same every time") {
  test::TestRandom random(7);
  std::vector<Example> examples;
  std::int64_t total = 0;
  for (int i = 0; i < 2000; ++i) {
    examples.push_back(example(1 + static_cast<std::int64_t>(random.next() % 300)));
    total += static_cast<std::int64_t>(examples.back().ids.size());
  }
  auto order = counting(examples.size());
  for (std::size_t i = order.size() - 1; i > 0; --i) {
    std::swap(order[i], order[random.next() % (i + 1)]);
  }
  const auto packs = pack_examples(examples, order, 512);
  CHECK(packs == pack_examples(examples, order, 512));
  std::vector<std::int64_t> seen;
  for (const auto& pack : packs) {
    std::int64_t length = 0;
    for (const std::int64_t i : pack) {
      length += static_cast<std::int64_t>(examples[static_cast<std::size_t>(i)].ids.size());
      seen.push_back(i);
    }
    if (length > 512) FAIL("a pack of ", length);
  }
  std::sort(seen.begin(), seen.end());
  CHECK(seen == counting(examples.size()));
  // Fill ratio of rows this mixed: best fit leaves next to nothing.
  CHECK(static_cast<double>(total) / (512.0 * static_cast<double>(packs.size())) > 0.98);
}

}  // namespace ds
