#include "libcore/optim/schedule.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numbers>
#include <utility>

namespace ds {

namespace {
constexpr std::array<std::pair<ScheduleKind, std::string_view>, 6> kNames = {{
    {ScheduleKind::kLinear, "linear"},
    {ScheduleKind::kCosine, "cosine"},
    {ScheduleKind::kCosineWithRestarts, "cosine_with_restarts"},
    {ScheduleKind::kConstant, "constant"},
    {ScheduleKind::kConstantWithWarmup, "constant_with_warmup"},
    {ScheduleKind::kInverseSqrt, "inverse_sqrt"},
}};
}  // namespace

std::string_view schedule_name(ScheduleKind kind) {
  for (const auto& [value, name] : kNames) {
    if (value == kind) return name;
  }
  return "";
}

std::optional<ScheduleKind> parse_schedule(std::string_view name) {
  for (const auto& [value, known] : kNames) {
    if (known == name) return value;
  }
  return std::nullopt;
}

double Schedule::factor(std::int64_t step) const {
  if (kind == ScheduleKind::kConstant) return 1.0;
  if (step < warmup_steps) {
    return static_cast<double>(step) / static_cast<double>(std::max<std::int64_t>(1, warmup_steps));
  }
  const auto past = static_cast<double>(step - warmup_steps);
  const auto decay_steps =
      static_cast<double>(std::max<std::int64_t>(1, total_steps - warmup_steps));
  const double progress = past / decay_steps;
  switch (kind) {
    case ScheduleKind::kLinear:
      return std::max(0.0, static_cast<double>(total_steps - step) / decay_steps);
    case ScheduleKind::kCosine:
      // num_cycles 0.5: half a wave. The reference never rises again after its end only because the
      // trainer stops there; a step past the end must not train at a growing rate.
      return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * std::min(1.0, progress))));
    case ScheduleKind::kCosineWithRestarts: {
      if (progress >= 1.0) return 0.0;
      const double phase = std::fmod(static_cast<double>(cycles) * progress, 1.0);
      return std::max(0.0, 0.5 * (1.0 + std::cos(std::numbers::pi * phase)));
    }
    case ScheduleKind::kInverseSqrt: {
      const double timescale = warmup_steps > 0 ? static_cast<double>(warmup_steps) : 10000.0;
      const double shift = timescale - static_cast<double>(warmup_steps);
      return 1.0 / std::sqrt((static_cast<double>(step) + shift) / timescale);
    }
    case ScheduleKind::kConstant:
    case ScheduleKind::kConstantWithWarmup:
      break;
  }
  return 1.0;
}

}  // namespace ds
