// Causal softmax attention of MLA over packed segments, and its absorbed form for decoding.
#pragma once

#include <span>

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// Head sizes of MLA: queries and keys are [nope ; rope], the rope key is shared by all heads.
struct MlaShape {
  int heads = 0;
  int nope = 0;   // qk_nope_head_dim
  int rope = 0;   // qk_rope_head_dim
  int value = 0;  // v_head_dim
};

// Token i of a segment sees tokens 0..i of the same segment. Blockwise: scratch is O(block * block)
// or O(block * segment length) per thread, never [heads, s, s]. Scores and softmax in f32 (f64 for
// F64); probabilities are rounded to the compute dtype before they multiply v. A token outside
// every segment gets o = 0, lse = -inf.
struct AttentionForward {
  static constexpr std::string_view kName = "attention_forward";
  MlaShape shape;
  double scale = 1.0;  // softmax scale, m^2 included
  ConstView q;         // [tokens, heads * (nope + rope)], rope part rotated
  ConstView kv;        // [tokens, heads * (nope + value)], per head k_nope then v
  ConstView k_rope;    // [tokens, rope], rotated; rows may be strided
  ConstView segments;  // [count + 1] I32: rising row offsets, the last <= tokens
  View o;              // [tokens, heads * value]
  View lse;            // [heads, tokens] statistics dtype: log-sum-exp of scaled scores
};
void check(const AttentionForward& op);
Cost cost(const AttentionForward& op);
void run(CpuContext& context, const AttentionForward& op);

// Recomputes the probabilities from lse. dq, dkv, dk_rope are written (not added to); rows outside
// every segment get 0. dk_rope sums over heads in an order fixed by the number of threads.
struct AttentionBackward {
  static constexpr std::string_view kName = "attention_backward";
  MlaShape shape;
  double scale = 1.0;
  ConstView q, kv, k_rope, segments;  // as in AttentionForward
  ConstView o;                        // [tokens, heads * value]
  ConstView lse;                      // [heads, tokens]
  ConstView d_o;                      // [tokens, heads * value]
  View dq;                            // [tokens, heads * (nope + rope)]
  View dkv;                           // [tokens, heads * (nope + value)]
  View dk_rope;                       // [tokens, rope], rows may be strided
};
void check(const AttentionBackward& op);
Cost cost(const AttentionBackward& op);
void run(CpuContext& context, const AttentionBackward& op);

// Absorbed attention over latent caches (reference/model.md section 3): row i attends to the first
// visible[i] entries of cache[i]; score = (q_latent . latent + q_rope . k_rope) * scale.
struct AttentionDecode {
  static constexpr std::string_view kName = "attention_decode";
  int heads = 0;
  int latent = 0;  // kv_lora_rank
  int rope = 0;
  double scale = 1.0;
  ConstView q_latent;  // [rows, heads * latent]
  ConstView q_rope;    // [rows, >= heads * q_rope_stride]: head h's rotated rope part
                       // begins at column h * q_rope_stride + q_rope_offset
  std::int64_t q_rope_stride = 0;
  std::int64_t q_rope_offset = 0;
  std::span<const ConstView> caches;      // one per row: [>= visible, latent + rope], normed latent
                                          // then rotated rope key; dtype of q
  std::span<const std::int32_t> visible;  // one per row, >= 1
  View o_latent;                          // [rows, heads * latent]
};
void check(const AttentionDecode& op);
Cost cost(const AttentionDecode& op);
void run(CpuContext& context, const AttentionDecode& op);

}  // namespace ds::kernels
