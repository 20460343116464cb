// training.svg: loss, learning rates and stage boundaries of a run.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace ds::finetune {

struct CurvePoint {
  std::int64_t step = 0;
  double loss = 0.0;
  double lr_a = 0.0;
  double lr_b = 0.0;
};

// A self-contained SVG. `stage_ends` are drawn as vertical lines; points with a non-finite loss are
// left out. At most a few hundred points are drawn (means of equal spans of steps).
std::string training_svg(const std::vector<CurvePoint>& points,
                         const std::vector<std::int64_t>& stage_ends);

}  // namespace ds::finetune
