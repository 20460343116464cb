// Multi-head latent attention (reference/model.md section 3).
#pragma once

#include <span>

#include "kernels/attention.h"
#include "libcore/nn/linear.h"
#include "libcore/nn/rms_norm.h"

namespace ds {

// The packed rows a layer works on.
struct Rows {
  ConstView positions;  // [tokens] I32
  ConstView segments;   // [count + 1] I32
  // The rows whose output is wanted, ascending, and for every token its place among them or their
  // number. Absent: all rows. Keys and values are made for every row whichever.
  ConstView wanted;        // [outputs] I32
  ConstView wanted_index;  // [tokens] I32
  std::int64_t tokens() const { return positions.cols(); }
  std::int64_t outputs() const { return wanted ? wanted.cols() : tokens(); }
};

struct RopeTable {
  ConstView cos;  // [positions, r/2] statistics dtype, attention factor included
  ConstView sin;
  bool interleaved = true;
};

struct MlaSaved {
  View xn;         // [tokens, hidden] normed input
  View xq;         // [outputs, hidden] the rows of xn that ask; xn itself when all do
  View q_a;        // [outputs, q_lora] before its norm (absent without q_lora)
  View q_a_rstd;   // [outputs]
  View q_an;       // [outputs, q_lora] normed
  View q;          // [tokens, heads * (nope + rope)], rotated; zero in rows that do not ask
  View kv_a;       // [tokens, kv_lora + rope]: latent before its norm, rope key rotated
  View kv_a_rstd;  // [tokens]
  View latent;     // [tokens, kv_lora] normed
  View kv;         // [tokens, heads * (nope + value)]
  View o;          // [tokens, heads * value]
  View o_wanted;   // [outputs, heads * value]; o itself when all rows are wanted
  View lse;        // [heads, tokens]
  LinearSaved q_proj, q_a_proj, q_b_proj, kv_a_proj, kv_b_proj, o_proj;
};

// One sequence's entry of a decode step: its cache rows of one layer.
struct CacheRow {
  View cache;               // [capacity, kv_lora + rope]
  std::int32_t length = 0;  // entries before this token
};

struct Mla {
  kernels::MlaShape shape;
  std::int64_t kv_lora_rank = 0;
  double softmax_scale = 1.0;
  RopeTable rope;
  Linear q_proj;    // without q_lora
  Linear q_a_proj;  // with q_lora
  Linear q_b_proj;
  RmsNorm q_a_norm;
  bool has_q_lora = false;
  Linear kv_a_proj;
  RmsNorm kv_a_norm;
  Linear kv_b_proj;
  Linear o_proj;

  // y [outputs, hidden] += o_proj(attention(xn)); xn must live in saved.xn.
  void forward(Exec& exec, const Rows& rows, const View& y, MlaSaved& saved) const;
  // dxn [tokens, hidden] = gradient of xn given dy [outputs, hidden] of the sum. dxn absent:
  // nothing below needs it.
  void backward(Exec& exec, const Rows& rows, const ConstView& dy, MlaSaved& saved,
                const View& dxn) const;
  // Before backward, when exec.selective: makes what forward dropped again in exec.saved, from
  // saved.xn, which must be there again.
  void restore(Exec& exec, const Rows& rows, MlaSaved& saved) const;
  // One token a row, absorbed form; appends to each row's cache. xn, y [rows, hidden]; y +=.
  void decode(Exec& exec, const ConstView& positions, const ConstView& xn,
              std::span<const CacheRow> caches, const View& y) const;

 private:
  // Everything up to the queries and keys of attention, in exec.droppable().
  void make_queries_and_keys(Exec& exec, const Rows& rows, MlaSaved& saved) const;
  void project_queries(Exec& exec, const Rows& rows, MlaSaved& saved) const;
  void select_queries(Exec& exec, const Rows& rows, Arena& arena, MlaSaved& saved) const;
  // o, lse and o_wanted.
  void attend(Exec& exec, const Rows& rows, MlaSaved& saved) const;
  // The rotary part of `heads` heads that are `stride` apart, each beginning at `offset`.
  void rotate(Exec& exec, const ConstView& positions, const View& x, int heads, int stride,
              int offset, bool inverse) const;
  void rotate(Exec& exec, const ConstView& positions, const View& q, const View& k_rope,
              bool inverse) const;
};

}  // namespace ds
