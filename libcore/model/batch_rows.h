// Which rows of a batch the blocks work on.
#pragma once

#include <cstdint>

#include "libcore/data/example.h"
#include "libcore/nn/mla.h"

namespace ds {

// Rows of a batch that predict something, and their place in the compacted order.
struct TargetRows {
  View rows;     // [count] I32: token index of each target
  View targets;  // [count] I32: the id to predict
  View index;    // [tokens] I32: position in rows, or count for none
  std::int64_t count() const { return rows.cols(); }
};

// `index` for `rows`, which ascend, of `tokens` tokens.
View index_rows(Arena& arena, std::int64_t tokens, const ConstView& rows);
TargetRows find_targets(Arena& arena, const TokenBatch& batch);

// The rows of a batch; in the last block only those in `wanted` give an output, because nothing
// later looks at the others.
struct BatchRows {
  Rows inner;
  Rows last;
};
// `batch` must outlive the result.
BatchRows rows_of(const TokenBatch& batch);
// So must the rows of `targets`.
BatchRows rows_of(const TokenBatch& batch, const TargetRows& targets);

}  // namespace ds
