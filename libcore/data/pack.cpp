// Batches: segments and packs.
#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>
#include <set>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/data/dataset.h"

namespace ds {

void append_segment(TokenBatch& batch, const Example& example) {
  const std::size_t size = example.ids.size();
  constexpr std::size_t kLargest = std::numeric_limits<std::int32_t>::max();
  if (size == 0 || example.labels.size() != size || batch.ids.size() + size > kLargest) {
    throw Error(ExitCode::kInternal,
                fmt::format("append_segment: line {}: {} ids and {} labels after {} tokens",
                            example.line, size, example.labels.size(), batch.ids.size()));
  }
  if (batch.segments.empty()) batch.segments.push_back(0);
  batch.ids.insert(batch.ids.end(), example.ids.begin(), example.ids.end());
  batch.targets.insert(batch.targets.end(), example.labels.begin() + 1, example.labels.end());
  batch.targets.push_back(kNoTarget);
  const std::size_t begin = batch.positions.size();
  batch.positions.resize(begin + size);
  std::iota(batch.positions.begin() + static_cast<std::ptrdiff_t>(begin), batch.positions.end(), 0);
  batch.segments.push_back(static_cast<std::int32_t>(batch.ids.size()));
  batch.lines.push_back(example.line);
}

std::vector<std::vector<std::int64_t>> pack_examples(const std::vector<Example>& examples,
                                                     const std::vector<std::int64_t>& order,
                                                     std::int64_t capacity) {
  const auto length = [&](std::size_t rank) {
    return static_cast<std::int64_t>(examples.at(static_cast<std::size_t>(order[rank])).ids.size());
  };
  std::vector<std::size_t> ranks(order.size());
  std::iota(ranks.begin(), ranks.end(), std::size_t{0});
  std::stable_sort(ranks.begin(), ranks.end(),
                   [&](std::size_t a, std::size_t b) { return length(a) > length(b); });
  std::vector<std::vector<std::size_t>> bins;
  std::set<std::pair<std::int64_t, std::size_t>> room;  // free tokens, bin
  for (const std::size_t rank : ranks) {
    const std::int64_t needed = length(rank);
    if (needed > capacity) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("packing: the row of line {} has {} tokens, a pack holds {}",
                      examples[static_cast<std::size_t>(order[rank])].line, needed, capacity),
          "raise --cutoff_len, or let longer rows be cut with --truncation");
    }
    const auto best = room.lower_bound({needed, 0});
    std::size_t bin = bins.size();
    std::int64_t left = capacity;
    if (best == room.end()) {
      bins.emplace_back();
    } else {
      std::tie(left, bin) = *best;
      room.erase(best);
    }
    bins[bin].push_back(rank);
    room.insert({left - needed, bin});
  }
  for (auto& bin : bins) std::sort(bin.begin(), bin.end());
  std::sort(bins.begin(), bins.end());  // by first member: ranks are unique
  std::vector<std::vector<std::int64_t>> packs;
  packs.reserve(bins.size());
  for (const auto& bin : bins) {
    auto& pack = packs.emplace_back();
    for (const std::size_t rank : bin) pack.push_back(order[rank]);
  }
  return packs;
}

}  // namespace ds
