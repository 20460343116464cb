#include "libcore/model/batch_rows.h"

#include <algorithm>

#include "libcore/nn/row_ops.h"

namespace ds {

View index_rows(Arena& arena, std::int64_t tokens, const ConstView& rows) {
  const View index = arena.allocate("batch.target_index", DType::kI32, {tokens});
  auto* const place = index.as<std::int32_t>();
  const auto* const row = rows.as<std::int32_t>();
  std::fill_n(place, tokens, static_cast<std::int32_t>(rows.cols()));
  for (std::int32_t i = 0; i < rows.cols(); ++i) place[row[i]] = i;
  return index;
}

TargetRows find_targets(Arena& arena, const TokenBatch& batch) {
  const std::int64_t count = batch.target_count();
  TargetRows found{.rows = arena.allocate("batch.target_rows", DType::kI32, {count}),
                   .targets = arena.allocate("batch.targets", DType::kI32, {count}),
                   .index = {}};
  auto* row = found.rows.as<std::int32_t>();
  auto* target = found.targets.as<std::int32_t>();
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    if (batch.targets[i] == kNoTarget) continue;
    *row++ = static_cast<std::int32_t>(i);
    *target++ = batch.targets[i];
  }
  found.index = index_rows(arena, batch.tokens(), found.rows);
  return found;
}

BatchRows rows_of(const TokenBatch& batch) {
  const Rows all{.positions = index_view(batch.positions), .segments = index_view(batch.segments)};
  return {all, all};
}

BatchRows rows_of(const TokenBatch& batch, const TargetRows& targets) {
  BatchRows rows = rows_of(batch);
  if (targets.count() < batch.tokens()) {
    rows.last.wanted = targets.rows;
    rows.last.wanted_index = targets.index;
  }
  return rows;
}

}  // namespace ds
