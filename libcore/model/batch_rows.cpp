#include "libcore/model/batch_rows.h"

#include "libcore/nn/row_ops.h"

namespace ds {

void index_rows(std::size_t tokens, TargetRows& found) {
  found.index.assign(tokens, static_cast<std::int32_t>(found.rows.size()));
  for (std::size_t i = 0; i < found.rows.size(); ++i) {
    found.index[static_cast<std::size_t>(found.rows[i])] = static_cast<std::int32_t>(i);
  }
}

TargetRows find_targets(const TokenBatch& batch) {
  TargetRows found;
  for (std::size_t i = 0; i < batch.ids.size(); ++i) {
    if (batch.targets[i] == kNoTarget) continue;
    found.rows.push_back(static_cast<std::int32_t>(i));
    found.targets.push_back(batch.targets[i]);
  }
  index_rows(batch.ids.size(), found);
  return found;
}

BatchRows rows_of(const TokenBatch& batch) {
  const Rows all{.positions = index_view(batch.positions), .segments = index_view(batch.segments)};
  return {all, all};
}

BatchRows rows_of(const TokenBatch& batch, const TargetRows& targets) {
  BatchRows rows = rows_of(batch);
  if (targets.rows.size() < batch.ids.size()) {
    rows.last.wanted = index_view(targets.rows);
    rows.last.wanted_index = index_view(targets.index);
  }
  return rows;
}

}  // namespace ds
