// Expert selection of DeepSeekMoE (reference/model.md sections 3, 5, 6).
#pragma once

#include "kernels/context.h"
#include "kernels/view.h"

namespace ds::kernels {

enum class Scoring : std::uint8_t { kSigmoid, kSoftmax };
// greedy: top-k of the scores. group_limited_greedy: group score = largest score. noaux_tc: group
// score = sum of the two largest biased scores. Experts of dropped groups are masked with -inf.
enum class TopkMethod : std::uint8_t { kGreedy, kGroupLimitedGreedy, kNoauxTc };

struct RouterSettings {
  Scoring scoring = Scoring::kSigmoid;
  TopkMethod method = TopkMethod::kNoauxTc;
  int groups = 1;
  int kept_groups = 1;
  int top_k = 1;
  bool normalise = true;  // weights / (sum + 1e-20), before the scale
  double scale = 1.0;     // routed_scaling_factor
};

// Ties are resolved to the lowest expert index. `bias` chooses only; weights come from the scores.
struct RouterForward {
  static constexpr std::string_view kName = "router_forward";
  RouterSettings settings;
  ConstView logits;  // [tokens, experts] F32 (F64)
  ConstView bias;    // optional [experts] F32 (F64): e_score_correction_bias
  View scores;       // [tokens, experts] same dtype, kept for backward
  View experts;      // [tokens, top_k] I32, by falling selection score
  View weights;      // [tokens, top_k] same dtype as logits: normalised and scaled
};
void check(const RouterForward& op);
Cost cost(const RouterForward& op);
void run(CpuContext& context, const RouterForward& op);

// Gradient through the chosen weights only; indices, groups and bias carry none.
struct RouterBackward {
  static constexpr std::string_view kName = "router_backward";
  RouterSettings settings;
  ConstView scores;     // [tokens, experts]
  ConstView experts;    // [tokens, top_k] I32
  ConstView d_weights;  // [tokens, top_k]
  View d_logits;        // [tokens, experts], written
};
void check(const RouterBackward& op);
Cost cost(const RouterBackward& op);
void run(CpuContext& context, const RouterBackward& op);

}  // namespace ds::kernels
