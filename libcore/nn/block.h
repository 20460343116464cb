// One decoder layer.
#pragma once

#include <optional>

#include "libcore/nn/mla.h"
#include "libcore/nn/mlp.h"
#include "libcore/nn/moe.h"

namespace ds {

struct BlockSaved {
  View attention_rstd;  // [tokens]
  View h_mid;           // [outputs, hidden] residual stream after attention
  View mlp_rstd;        // [outputs]
  View mlp_xn;          // [outputs, hidden]
  MlaSaved attention;
  MlpSaved mlp;
  MoeSaved moe;
};

// h_mid = h + attention(norm(h)); h_out = h_mid + mlp(norm(h_mid)).
struct Block {
  std::int64_t index = 0;  // of the layer, for the profiler
  RmsNorm attention_norm;
  Mla attention;
  RmsNorm mlp_norm;
  std::optional<Mlp> mlp;  // a dense layer ...
  std::optional<Moe> moe;  // ... or an MoE layer

  // Whether anything in it takes a gradient.
  bool trainable() const;
  // h [tokens, hidden], h_out [rows.outputs(), hidden].
  void forward(Exec& whole, const Rows& rows, const ConstView& h, const View& h_out,
               BlockSaved& saved) const;
  // dh = gradient of h given d_out of h_out; d_out is overwritten and is dh itself when all rows
  // are wanted. Consumes saved. With need_dx false (nothing below is trained) only the gradients
  // inside the block are taken, and dh is left undefined.
  void backward(Exec& whole, const Rows& rows, const ConstView& h, BlockSaved& saved,
                const View& d_out, const View& dh, bool need_dx) const;
  // One token a row; h is updated in place.
  void decode(Exec& exec, const ConstView& positions, const View& h,
              std::span<const CacheRow> caches) const;

 private:
  void mlp_forward(Exec& exec, const View& h_out, BlockSaved& saved) const;
  // What selective recomputation dropped, before the backward of either half; in exec.saved.
  void restore_mlp(Exec& exec, BlockSaved& saved) const;
  void restore_attention(Exec& exec, const Rows& rows, const ConstView& h, BlockSaved& saved) const;
};

}  // namespace ds
