// DeepSeekMoE: router, routed experts grouped by token, shared experts.
#pragma once

#include <optional>
#include <vector>

#include "kernels/router.h"
#include "libcore/nn/linear.h"
#include "libcore/nn/mlp.h"

namespace ds {

struct Expert {
  Linear gate_proj;
  Linear up_proj;
  Linear down_proj;
};

// A "slot" is a row of the layout grouped by expert: slots = tokens * top_k.
struct MoeSaved {
  ConstView xn;     // [tokens, hidden], the caller's
  View scores;      // [tokens, experts]
  View experts;     // [tokens, top_k] I32
  View row_weight;  // [slots, 1] routing weight of each slot
  View offsets;     // [experts + 1] I32
  View slot_token;  // [slots] I32
  View entry_slot;  // [tokens, top_k] I32
  View gate_up;     // [slots, 2 * width]; backward overwrites it with its gradient
  ArenaList<LinearSaved> gate_proj, up_proj, down_proj;  // one an expert
  MlpSaved shared;
};

struct Moe {
  std::int64_t width = 0;  // of one expert
  kernels::RouterSettings router;
  WeightRef gate_weight;  // [experts, hidden]
  ConstView gate_bias;    // optional [experts] statistics dtype: e_score_correction_bias, frozen
  Parameter* gate_parameter = nullptr;  // full-parameter training
  std::vector<Expert> experts;
  std::optional<Mlp> shared;

  // y += sum_k w_k expert_k(xn) + shared(xn).
  void forward(Exec& exec, const ConstView& xn, const View& y, MoeSaved& saved) const;
  // dxn = gradient of xn given dy of the sum. Consumes saved.
  void backward(Exec& exec, const ConstView& dy, MoeSaved& saved, const View& dxn) const;

 private:
  // Calls f(expert, first slot, slots) for every expert that has tokens.
  template <class F>
  void for_active(const MoeSaved& saved, F&& f) const;
};

}  // namespace ds
