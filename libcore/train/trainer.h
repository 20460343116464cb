// One optimizer update from a window of micro-batches.
#pragma once

#include <cstdint>
#include <string>

#include "libcore/model/deepseek.h"
#include "libcore/optim/optimizer.h"
#include "libcore/train/data_order.h"
#include "libcore/train/layer_selection.h"

namespace ds {

struct UpdateReport {
  double loss_sum = 0.0;  // over the window's targets
  std::int64_t targets = 0;
  std::int64_t tokens = 0;
  StepReport step;
  std::size_t activation_bytes = 0;  // largest amount kept for backward in this update
  double mean_loss() const { return targets > 0 ? loss_sum / static_cast<double>(targets) : 0.0; }
  // Empty when everything is finite; else a sentence that names the tensor (or the loss) and the
  // source lines of the micro-batch. Then nothing was updated.
  std::string divergence;
};

// Gradients of the sum of target losses divided by the window's number of targets (never a mean of
// means), clipping, AdamW. Throws Error(kInternal) for a window without targets.
class Trainer {
 public:
  // All references must outlive the trainer. `layer_major`: a window's micro-batches pass every
  // layer together (same bits, see DeepSeekModel::forward_backward), at the cost of keeping the
  // activations of all of them.
  Trainer(DeepSeekModel& model, Optimizer& optimizer, Device& device, std::uint64_t seed,
          Recompute recompute, bool layer_major = false);
  // From now on the selection says which layers' adapters an update trains; null: all.
  void select_layers(LayerSelection* selection) { selection_ = selection; }
  // `step` counts finished updates; with the micro-batch it keys the dropout masks.
  UpdateReport update(const Window& window, std::int64_t step, double lr_factor);
  // Mean loss over batches without gradients.
  LossSums evaluate(const TokenBatch& batch);

  // Activation memory at its peak, by purpose.
  std::size_t peak_activation_bytes() const { return saved_.peak_bytes() + scratch_.peak_bytes(); }
  // Kept for backward, and temporaries; both explain their own peak by name.
  const Arena& saved() const { return saved_; }
  const Arena& scratch() const { return scratch_; }

 private:
  // Forward and backward of the window; afterwards the report has its loss, or the divergence.
  void add_gradients(const Window& window, std::int64_t step, UpdateReport& report);

  DeepSeekModel& model_;
  Optimizer& optimizer_;
  Device& device_;
  std::uint64_t seed_;
  Recompute recompute_;
  bool layer_major_;
  LayerSelection* selection_ = nullptr;
  Arena saved_{"activations"};
  Arena scratch_{"workspace"};
};

}  // namespace ds
