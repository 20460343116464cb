// The losses and rates of a run, for the picture and the model card.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "tools/finetune/training_svg.h"

namespace ds::finetune {

class TrainingCurve {
 public:
  // The steps 1..last_step of an interrupted run, from OUTPUT/report.jsonl; empty when that is
  // gone.
  static TrainingCurve read(const std::filesystem::path& output, std::int64_t last_step);

  void add(const CurvePoint& point, std::int64_t targets);
  const std::vector<CurvePoint>& points() const { return points_; }
  double first_loss() const { return points_.empty() ? 0.0 : points_.front().loss; }
  double last_loss() const { return points_.empty() ? 0.0 : points_.back().loss; }
  std::int64_t target_tokens() const { return target_tokens_; }
  double eval_loss = -1.0;  // last held-out loss, negative: none

 private:
  std::vector<CurvePoint> points_;
  std::int64_t target_tokens_ = 0;
};

}  // namespace ds::finetune
