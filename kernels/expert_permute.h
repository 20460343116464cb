// Grouping tokens by expert, and back.
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

// Counting sort of the (token, choice) entries by expert, stable in token order. A "slot" is a row
// of the grouped layout: expert e owns slots [offsets[e], offsets[e + 1]).
struct ExpertPlan {
  static constexpr std::string_view kName = "expert_plan";
  ConstView experts;  // [tokens, top_k] I32 in [0, count)
  View offsets;       // [count + 1] I32
  View slot_token;    // [tokens * top_k] I32: token of each slot
  View slot_entry;    // [tokens * top_k] I32: token * top_k + choice of each slot
  View entry_slot;    // [tokens, top_k] I32: slot of each entry (inverse of slot_entry)
};
void check(const ExpertPlan& op);
Cost cost(const ExpertPlan& op);
void run(CpuContext& context, const ExpertPlan& op);

// y[i] = x[index[i]].
struct GatherRows {
  static constexpr std::string_view kName = "gather_rows";
  ConstView x;      // [n, dim] F32, BF16 or F64
  ConstView index;  // [m] I32 in [0, n)
  View y;           // [m, dim]
};
void check(const GatherRows& op);
Cost cost(const GatherRows& op);
void run(CpuContext& context, const GatherRows& op);

// y[t] (+)= sum over j of x[index[t, j]], summed in f32 (f64) in the order of j, rounded once.
struct CombineRows {
  static constexpr std::string_view kName = "combine_rows";
  ConstView x;              // [n, dim]
  ConstView index;          // [tokens, k] I32 in [0, n)
  View y;                   // [tokens, dim]
  bool accumulate = false;  // y += instead of y =
};
void check(const CombineRows& op);
Cost cost(const CombineRows& op);
void run(CpuContext& context, const CombineRows& op);

}  // namespace ds::kernels
