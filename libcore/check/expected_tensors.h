// The tensors a config.json demands, and where a checkpoint's tensors fall among them
// (reference/model.md section 7).
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/config/model_config.h"
#include "libcore/io/checkpoint_index.h"

namespace ds::check {

enum class TensorRole {
  kEmbedding,   // and the head
  kNorm,        //
  kMatrix,      // a linear weight: FP8 in FP8 checkpoints, then with a scale
  kRouter,      // mlp.gate.weight: never FP8
  kRouterBias,  // e_score_correction_bias: F32
  kBias,        // of attention
  kMtp,         // eh_proj: never FP8
};

// One tensor of a layer, or outside of the layers.
struct TensorSlot {
  std::string stem;  // "self_attn.o_proj.weight"; outside of the layers the whole name
  std::string kind;  // what findings are grouped by: the stem, "mlp.experts.*." before an expert's
  std::vector<std::int64_t> shape;
  TensorRole role = TensorRole::kMatrix;
  bool required = true;  // copies of the embedding and the head in a prediction layer are not
};

// The tensors of one kind of layer, by stem.
struct LayerPlan {
  std::vector<TensorSlot> slots;
  bool moe = false;
  // Index of the slot of that stem, -1 when there is none.
  int find(std::string_view stem) const;
};

// Hugging Face layout.
class ExpectedTensors {
 public:
  explicit ExpectedTensors(const ModelConfig& config);

  const LayerPlan& outside() const { return outside_; }
  // `layer` is below layers(); the last ones are prediction layers.
  const LayerPlan& layer(std::int64_t layer) const;
  std::int64_t layers() const { return layers_ + prediction_layers_; }
  std::int64_t main_layers() const { return layers_; }
  std::int64_t experts() const { return experts_; }
  // gate_proj, up_proj, down_proj of one routed expert; stems are "gate_proj.weight", ...
  const LayerPlan& expert() const { return expert_; }

 private:
  const ModelConfig config_;
  std::int64_t layers_ = 0;
  std::int64_t prediction_layers_ = 0;
  std::int64_t experts_ = 0;
  LayerPlan outside_, dense_, moe_, mtp_, expert_;
};

// "model.layers.3.mlp.experts.7.up_proj.weight_scale_inv" taken apart.
struct TensorName {
  std::int64_t layer = -1;   // -1: outside of the layers
  std::int64_t expert = -1;  // -1: not of a routed expert
  std::string_view stem;     // what is left, without the scale's ending
  bool scale = false;        // it ended in _scale_inv
};
TensorName split_name(std::string_view name);
// Names that are worth a thread of their own.
inline constexpr std::size_t kNamesPerThread = 8192;
std::string join_name(std::int64_t layer, std::int64_t expert, std::string_view stem);

// Each expected tensor with what the checkpoint has for it; made in one pass over the entries by
// all CPUs.
class TensorSurvey {
 public:
  // `expected` and `entries` must outlive the survey.
  TensorSurvey(const ExpectedTensors& expected, const std::vector<Checkpoint::Entry>& entries);

  struct Place {
    std::int32_t weight = -1;  // index in entries(), -1: absent
    std::int32_t scale = -1;
  };
  const ExpectedTensors& expected() const { return expected_; }
  const std::vector<Checkpoint::Entry>& entries() const { return entries_; }
  const TensorInfo& tensor(std::int32_t entry) const {
    return *entries_[static_cast<std::size_t>(entry)].tensor;
  }
  std::string file(std::int32_t entry) const {
    return entries_[static_cast<std::size_t>(entry)].file->path().string();
  }
  // Places of a layer's (layer -1: outside) slots, in the order of its plan.
  const Place* layer(std::int64_t layer) const {
    return &places_[begin_[static_cast<std::size_t>(layer + 1)]];
  }
  // Places of the three slots of an expert of an MoE layer.
  const Place* expert(std::int64_t layer, std::int64_t expert) const {
    return &places_[expert_begin_[static_cast<std::size_t>(layer)] +
                    static_cast<std::size_t>(expert) * expected_.expert().slots.size()];
  }
  // Entries that no expected tensor takes, by name.
  const std::vector<std::int32_t>& unknown() const { return unknown_; }

  // f(layer, expert, slot, place) for every expected tensor, present or not.
  template <class F>
  void each(F&& f) const {
    for (std::int64_t at = -1; at < expected_.layers(); ++at) {
      const LayerPlan& plan = at < 0 ? expected_.outside() : expected_.layer(at);
      for (std::size_t i = 0; i < plan.slots.size(); ++i) {
        f(at, std::int64_t{-1}, plan.slots[i], layer(at)[i]);
      }
      if (!plan.moe) continue;
      for (std::int64_t e = 0; e < expected_.experts(); ++e) {
        for (std::size_t i = 0; i < expected_.expert().slots.size(); ++i) {
          f(at, e, expected_.expert().slots[i], expert(at, e)[i]);
        }
      }
    }
  }

 private:
  std::size_t place_of(const TensorName& name) const;  // in places_, its size for none
  const ExpectedTensors& expected_;
  const std::vector<Checkpoint::Entry>& entries_;
  std::vector<Place> places_;
  std::vector<std::size_t> begin_;         // by layer + 1
  std::vector<std::size_t> expert_begin_;  // by layer
  std::vector<std::int32_t> unknown_;
};

}  // namespace ds::check
