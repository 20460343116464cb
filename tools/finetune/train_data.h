// The data of a run: one dataset, or one a stage.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "libcore/data/dataset.h"
#include "libcore/train/data_order.h"
#include "libcore/train/stages.h"
#include "tools/finetune/session.h"

namespace ds::finetune {

// Examples and their order, per stage. Stages without data of their own share the run's dataset and
// its position.
class TrainData {
 public:
  TrainData(const TrainSettings& settings, const BaseModel& base, ChatTemplate chat_template);
  // Fixes the order; `stages` as parsed. Slices the data for --stage_data curriculum (easy to hard,
  // by length in tokens).
  void plan(const TrainSettings& settings, const std::vector<Stage>& stages);

  const std::vector<Dataset>& datasets() const { return datasets_; }
  DataOrder& order(std::size_t stage) { return *orders_[order_of_stage_[stage]]; }
  // Index of the stage's order: equal for stages that share one.
  std::size_t order_index(std::size_t stage) const { return order_of_stage_[stage]; }
  std::int64_t rows() const;
  // Steps of one epoch of the first stage's data.
  std::int64_t steps_per_epoch() const { return orders_[0]->windows_per_epoch(); }
  // Longest example, and the most tokens a micro-batch can have.
  std::int64_t longest() const;
  std::int64_t most_tokens(const TrainSettings& settings) const;
  // SHA-256 over all files, in order.
  std::string digest() const;

 private:
  std::vector<Dataset> datasets_;
  std::vector<std::vector<Example>> slices_;  // curriculum only
  std::vector<std::unique_ptr<DataOrder>> orders_;
  std::vector<std::size_t> order_of_stage_;
  std::vector<std::string> files_;
};

}  // namespace ds::finetune
