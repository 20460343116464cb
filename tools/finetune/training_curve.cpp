#include "tools/finetune/training_curve.h"

#include <fstream>
#include <nlohmann/json.hpp>
#include <string>

namespace ds::finetune {

void TrainingCurve::add(const CurvePoint& point, std::int64_t targets) {
  points_.push_back(point);
  target_tokens_ += targets;
}

TrainingCurve TrainingCurve::read(const std::filesystem::path& output, std::int64_t last_step) {
  TrainingCurve curve;
  std::ifstream in(output / "report.jsonl");
  std::string line;
  while (std::getline(in, line)) {
    const auto event = nlohmann::json::parse(line, nullptr, false);
    if (!event.is_object() || event.value("schema", "") != "deepseek/train-step/1") continue;
    const auto step = event.value("step", std::int64_t{0});
    if (step > last_step || step < 1) continue;
    // A killed run may have reported steps after its last checkpoint: the later line of a step
    // wins.
    while (!curve.points_.empty() && curve.points_.back().step >= step) curve.points_.pop_back();
    const auto number = [&event](const char* key) {
      return event.contains(key) && event[key].is_number() ? event[key].get<double>() : 0.0;
    };
    curve.add({step, number("loss"), number("lr_a"), number("lr_b")},
              static_cast<std::int64_t>(number("target_tokens")));
  }
  return curve;
}

}  // namespace ds::finetune
