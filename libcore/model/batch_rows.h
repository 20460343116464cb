// Which rows of a batch the blocks work on.
#pragma once

#include <cstdint>
#include <vector>

#include "libcore/data/example.h"
#include "libcore/nn/mla.h"

namespace ds {

// Rows of a batch that predict something, and their place in the compacted order.
struct TargetRows {
  std::vector<std::int32_t> rows;     // token index of each target
  std::vector<std::int32_t> targets;  // the id to predict
  std::vector<std::int32_t> index;    // [tokens] position in rows, or rows.size() for none
};

// Fills `index` from `rows`.
void index_rows(std::size_t tokens, TargetRows& found);
TargetRows find_targets(const TokenBatch& batch);

// The rows of a batch; in the last block only those in `wanted` give an output, because nothing
// later looks at the others.
struct BatchRows {
  Rows inner;
  Rows last;
};
// `batch` must outlive the result.
BatchRows rows_of(const TokenBatch& batch);
// So must `targets`.
BatchRows rows_of(const TokenBatch& batch, const TargetRows& targets);

}  // namespace ds
