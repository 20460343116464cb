// Learning-rate schedules, as transformers' optimization.py (reference/training.md section 5).
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

namespace ds {

enum class ScheduleKind {
  kLinear,
  kCosine,
  kCosineWithRestarts,
  kConstant,
  kConstantWithWarmup,
  kInverseSqrt,
};
std::string_view schedule_name(ScheduleKind kind);  // "linear", "cosine_with_restarts", ...
std::optional<ScheduleKind> parse_schedule(std::string_view name);

struct Schedule {
  ScheduleKind kind = ScheduleKind::kLinear;
  std::int64_t warmup_steps = 0;
  std::int64_t total_steps = 0;
  std::int64_t cycles = 1;  // kCosineWithRestarts only
  // Factor for the update that follows `step` finished ones (step counts from 0; >= 0). With
  // warm-up steps the first factor is 0, as in transformers; kConstant has no warm-up.
  double factor(std::int64_t step) const;
};

}  // namespace ds
