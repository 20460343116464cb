#include "libcore/train/data_order.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/base/rng.h"
#include "libcore/data/dataset.h"

namespace ds {

namespace {

Rng shuffle_stream(std::uint64_t seed, std::int64_t epoch, std::uint64_t purpose) {
  const auto base = static_cast<std::uint64_t>(RngStream::kShuffle);
  return Rng(seed, mix_stream(mix_stream(base, static_cast<std::uint64_t>(epoch)), purpose));
}

constexpr std::uint64_t kRows = 0;
constexpr std::uint64_t kPacks = 1;

}  // namespace

DataOrder::DataOrder(const std::vector<Example>& examples, BatchPlan plan)
    : examples_(examples), plan_(plan) {
  if (plan_.batch_size < 1 || plan_.accumulation < 1) {
    throw Error(ExitCode::kUsage,
                fmt::format("batch size {} and accumulation {} must be at least 1",
                            plan_.batch_size, plan_.accumulation));
  }
  const bool any = std::any_of(examples_.begin(), examples_.end(),
                               [](const Example& e) { return e.target_count() > 0; });
  if (!any) {
    throw Error(ExitCode::kBadInput,
                fmt::format("none of the {} rows has a target token", examples_.size()),
                "check the dataset: every row needs an answer to learn");
  }
  start_epoch();
}

void DataOrder::start_epoch() {
  const auto count = static_cast<std::int64_t>(examples_.size());
  std::vector<std::int64_t> order(examples_.size());
  std::iota(order.begin(), order.end(), std::int64_t{0});
  if (plan_.shuffle) order = shuffle_stream(plan_.seed, epoch_, kRows).permutation(count);
  units_.clear();
  if (!plan_.packing) {
    for (const std::int64_t row : order) units_.push_back({row});
    return;
  }
  std::vector<std::vector<std::int64_t>> packs = pack_examples(examples_, order, plan_.cutoff_len);
  if (!plan_.shuffle) {
    // Packing goes by length; without shuffling the file's order is wanted as far as packs allow.
    for (auto& pack : packs) std::sort(pack.begin(), pack.end());
    std::sort(packs.begin(), packs.end());
    units_ = std::move(packs);
    return;
  }
  // Packs come longest rows first: an epoch that starts with the long rows would be a curriculum.
  const auto pack_order = shuffle_stream(plan_.seed, epoch_, kPacks)
                              .permutation(static_cast<std::int64_t>(packs.size()));
  for (const std::int64_t pack : pack_order) {
    units_.push_back(std::move(packs[static_cast<std::size_t>(pack)]));
  }
}

std::int64_t DataOrder::windows_per_epoch() const {
  const std::int64_t window = plan_.batch_size * plan_.accumulation;
  return (static_cast<std::int64_t>(units_.size()) + window - 1) / window;
}

Window DataOrder::next() {
  const auto count = static_cast<std::int64_t>(units_.size());
  Window window;
  std::int64_t row = row_;
  for (std::int64_t micro = 0; micro < plan_.accumulation && row < count; ++micro) {
    TokenBatch batch;
    for (std::int64_t i = 0; i < plan_.batch_size && row < count; ++i, ++row) {
      for (const std::int64_t example : units_[static_cast<std::size_t>(row)]) {
        append_segment(batch, examples_[static_cast<std::size_t>(example)]);
      }
    }
    window.targets += batch.target_count();
    window.tokens += batch.tokens();
    window.batches.push_back(std::move(batch));
  }
  if (window.targets == 0) {
    std::string lines;
    for (const TokenBatch& batch : window.batches) {
      for (const std::int64_t line : batch.lines) {
        lines += fmt::format("{}{}", lines.empty() ? "" : ", ", line);
      }
    }
    throw Error(ExitCode::kBadInput,
                fmt::format("no row of an update has a target token (source lines {})", lines),
                "remove these rows or raise the limit that cut their answers off");
  }
  row_ = row;
  if (row_ == count) {
    ++epoch_;
    row_ = 0;
    start_epoch();
  }
  return window;
}

void DataOrder::seek(std::int64_t epoch, std::int64_t row) {
  if (epoch < 0 || row < 0) {
    throw Error(ExitCode::kBadInput,
                fmt::format("data position (epoch {}, row {}) is negative", epoch, row));
  }
  if (epoch != epoch_) {
    epoch_ = epoch;
    start_epoch();
  }
  const auto count = static_cast<std::int64_t>(units_.size());
  if (row > count) {
    throw Error(ExitCode::kBadInput,
                fmt::format("data position row {} is outside the {} rows of an epoch", row, count),
                "resume with the dataset of the first run");
  }
  row_ = row;
  if (row_ == count) {
    ++epoch_;
    row_ = 0;
    start_epoch();
  }
}

}  // namespace ds
