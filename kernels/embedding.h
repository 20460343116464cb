// Token embedding.
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// y[i] = table[ids[i]], converted to y's dtype.
struct EmbeddingForward {
  static constexpr std::string_view kName = "embedding_forward";
  ConstView table;  // [vocab, dim] F32, BF16, F16 or F64
  ConstView ids;    // [tokens] I32 in [0, vocab)
  View y;           // [tokens, dim] compute dtype
};
void check(const EmbeddingForward& op);
Cost cost(const EmbeddingForward& op);
void run(CpuContext& context, const EmbeddingForward& op);

// d_table[ids[i]] += dy[i], in token order whatever the number of threads.
struct EmbeddingBackward {
  static constexpr std::string_view kName = "embedding_backward";
  ConstView dy;   // [tokens, dim]
  ConstView ids;  // [tokens] I32
  View d_table;   // [vocab, dim] F32 (F64)
};
void check(const EmbeddingBackward& op);
Cost cost(const EmbeddingBackward& op);
void run(CpuContext& context, const EmbeddingBackward& op);

}  // namespace ds::kernels
