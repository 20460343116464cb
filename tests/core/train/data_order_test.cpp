#include "libcore/train/data_order.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <set>
#include <string>

#include "libcore/base/error.h"

namespace {

using ds::BatchPlan;
using ds::DataOrder;
using ds::Example;
using ds::Window;

// `count` rows; row i has line i + 1 and a length between 3 and 20.
std::vector<Example> rows(std::int64_t count) {
  std::vector<Example> examples;
  for (std::int64_t i = 0; i < count; ++i) {
    Example example;
    const std::int64_t length = 3 + (i * 7 + i / 3) % 18;
    for (std::int64_t t = 0; t < length; ++t) {
      example.ids.push_back(static_cast<std::int32_t>(i * 100 + t));
      example.labels.push_back(t < 2 ? ds::kNoTarget : example.ids.back());
    }
    example.line = i + 1;
    examples.push_back(std::move(example));
  }
  return examples;
}

// Source lines by micro-batch.
std::vector<std::vector<std::int64_t>> lines(const Window& window) {
  std::vector<std::vector<std::int64_t>> result;
  for (const auto& batch : window.batches) result.push_back(batch.lines);
  return result;
}

std::vector<std::int64_t> epoch_lines(DataOrder& order) {
  std::vector<std::int64_t> all;
  const std::int64_t epoch = order.epoch();
  while (order.epoch() == epoch) {
    for (const auto& batch : lines(order.next())) all.insert(all.end(), batch.begin(), batch.end());
  }
  return all;
}

bool same(const Window& a, const Window& b) {
  if (a.targets != b.targets || a.tokens != b.tokens || a.batches.size() != b.batches.size()) {
    return false;
  }
  for (std::size_t i = 0; i < a.batches.size(); ++i) {
    if (a.batches[i].ids != b.batches[i].ids || a.batches[i].targets != b.batches[i].targets ||
        a.batches[i].positions != b.batches[i].positions ||
        a.batches[i].segments != b.batches[i].segments ||
        a.batches[i].lines != b.batches[i].lines) {
      return false;
    }
  }
  return true;
}

TEST_CASE("five rows at accumulation two are three updates") {
  const auto examples = rows(5);
  DataOrder order(examples, BatchPlan{.batch_size = 1, .accumulation = 2, .shuffle = false});
  CHECK(order.windows_per_epoch() == 3);
  CHECK(lines(order.next()) == std::vector<std::vector<std::int64_t>>{{1}, {2}});
  CHECK(order.row() == 2);
  CHECK(lines(order.next()) == std::vector<std::vector<std::int64_t>>{{3}, {4}});
  const Window last = order.next();
  CHECK(lines(last) == std::vector<std::vector<std::int64_t>>{{5}});
  CHECK(last.tokens == static_cast<std::int64_t>(examples[4].ids.size()));
  CHECK(last.targets == last.tokens - 2);
  CHECK(order.epoch() == 1);
  CHECK(order.row() == 0);
  CHECK(lines(order.next()) == std::vector<std::vector<std::int64_t>>{{1}, {2}});
}

TEST_CASE("micro-batches of several rows, the last one partial") {
  const auto examples = rows(7);
  DataOrder order(examples, BatchPlan{.batch_size = 2, .accumulation = 3, .shuffle = false});
  CHECK(order.windows_per_epoch() == 2);
  CHECK(lines(order.next()) == std::vector<std::vector<std::int64_t>>{{1, 2}, {3, 4}, {5, 6}});
  CHECK(lines(order.next()) == std::vector<std::vector<std::int64_t>>{{7}});
  DataOrder odd(examples, BatchPlan{.batch_size = 3, .accumulation = 4, .shuffle = false});
  CHECK(odd.windows_per_epoch() == 1);
  CHECK(lines(odd.next()) == std::vector<std::vector<std::int64_t>>{{1, 2, 3}, {4, 5, 6}, {7}});
}

TEST_CASE("each epoch has its own order of all rows, from the seed alone") {
  const auto examples = rows(50);
  const BatchPlan plan{.batch_size = 3, .accumulation = 2, .seed = 9};
  DataOrder order(examples, plan);
  DataOrder again(examples, plan);
  DataOrder other(examples, BatchPlan{.batch_size = 3, .accumulation = 2, .seed = 10});
  std::set<std::vector<std::int64_t>> seen;
  for (int epoch = 0; epoch < 4; ++epoch) {
    auto all = epoch_lines(order);
    CHECK(all == epoch_lines(again));
    CHECK(all != epoch_lines(other));
    seen.insert(all);
    std::sort(all.begin(), all.end());
    REQUIRE(all.size() == 50);
    for (std::int64_t i = 0; i < 50; ++i) CHECK(all[static_cast<std::size_t>(i)] == i + 1);
  }
  CHECK(seen.size() == 4);
}

TEST_CASE("packs hold every row once and no more than the limit") {
  const auto examples = rows(60);
  for (const bool shuffle : {true, false}) {
    CAPTURE(shuffle);
    const BatchPlan plan{
        .batch_size = 1, .accumulation = 2, .shuffle = shuffle, .packing = true, .cutoff_len = 25};
    DataOrder order(examples, plan);
    const std::int64_t windows = order.windows_per_epoch();
    CHECK(windows < 30);
    std::vector<std::int64_t> first;
    for (int epoch = 0; epoch < 3; ++epoch) {
      CHECK(order.windows_per_epoch() == windows);
      std::vector<std::int64_t> all;
      while (order.epoch() == epoch) {
        for (const auto& batch : order.next().batches) {
          CHECK(batch.tokens() <= 25);
          CHECK(batch.segments.size() == batch.lines.size() + 1);
          all.insert(all.end(), batch.lines.begin(), batch.lines.end());
        }
      }
      if (epoch == 0) first = all;
      if (epoch > 0) CHECK((all == first) == !shuffle);
      std::sort(all.begin(), all.end());
      REQUIRE(all.size() == 60);
      for (std::int64_t i = 0; i < 60; ++i) CHECK(all[static_cast<std::size_t>(i)] == i + 1);
    }
  }
}

TEST_CASE("a position resumes exactly") {
  const auto examples = rows(23);
  for (const bool packing : {false, true}) {
    const BatchPlan plan{.batch_size = 2, .accumulation = 2, .packing = packing, .cutoff_len = 40};
    DataOrder straight(examples, plan);
    for (int step = 0; step < 20; ++step) {
      CAPTURE(step);
      DataOrder resumed(examples, plan);
      resumed.seek(straight.epoch(), straight.row());
      CHECK(resumed.epoch() == straight.epoch());
      CHECK(resumed.row() == straight.row());
      const Window wanted = straight.next();
      CHECK(same(resumed.next(), wanted));
      CHECK(resumed.epoch() == straight.epoch());
      CHECK(resumed.row() == straight.row());
    }
  }
}

TEST_CASE("positions outside the data") {
  const auto examples = rows(5);
  DataOrder order(examples, BatchPlan{});
  order.seek(2, 5);  // the end of an epoch is the start of the next
  CHECK(order.epoch() == 3);
  CHECK(order.row() == 0);
  CHECK_THROWS_AS(order.seek(0, 6), ds::Error);
  CHECK_THROWS_AS(order.seek(-1, 0), ds::Error);
  CHECK_THROWS_AS(order.seek(0, -1), ds::Error);
}

TEST_CASE("a window without targets is never given out") {
  auto examples = rows(4);
  for (const std::size_t i : {2u, 3u}) {
    std::fill(examples[i].labels.begin(), examples[i].labels.end(), ds::kNoTarget);
  }
  SUBCASE("beside rows with targets they are harmless") {
    DataOrder order(examples, BatchPlan{.batch_size = 4, .shuffle = false});
    CHECK(order.next().targets > 0);
  }
  SUBCASE("alone they are named") {
    DataOrder order(examples, BatchPlan{.batch_size = 2, .shuffle = false});
    order.next();
    try {
      order.next();
      FAIL_CHECK("no error was thrown");
    } catch (const ds::Error& error) {
      CHECK(error.code() == ds::ExitCode::kBadInput);
      CHECK(std::string(error.what()).find("3, 4") != std::string::npos);
    }
  }
  SUBCASE("a dataset without any") {
    for (auto& example : examples) {
      std::fill(example.labels.begin(), example.labels.end(), ds::kNoTarget);
    }
    CHECK_THROWS_AS(DataOrder(examples, BatchPlan{}), ds::Error);
  }
}

TEST_CASE("plans without rows are refused") {
  const auto examples = rows(4);
  CHECK_THROWS_AS(DataOrder(examples, BatchPlan{.batch_size = 0}), ds::Error);
  CHECK_THROWS_AS(DataOrder(examples, BatchPlan{.accumulation = 0}), ds::Error);
}

}  // namespace
