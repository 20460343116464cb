#include "tools/profile/roofline.h"

#include <fmt/format.h>

#include <algorithm>

namespace ds::profile {

namespace {
constexpr double kOverhead = 5.0;
}

Rating rate(double flops, double bytes, double seconds, const MachinePeaks& peaks) {
  Rating rating;
  if (!(seconds > 0.0)) return rating;
  const double compute = flops / peaks.matrix_flops;
  const double memory = bytes / peaks.memory_bytes;
  rating.bound = compute >= memory ? "compute" : "memory";
  if (seconds > kOverhead * std::max(compute, memory)) rating.bound = "overhead";
  rating.above_peak = compute > seconds;
  if (flops > 0.0 && !rating.above_peak) {
    rating.flops_per_second = flops / seconds;
    rating.share_of_peak = compute / seconds;
  }
  return rating;
}

std::string rate_text(const Rating& rating) {
  if (rating.above_peak) return "above peak";
  return rating.flops_per_second ? fmt::format("{:.1f}", *rating.flops_per_second / 1e9) : "-";
}

std::string share_text(const Rating& rating) {
  return rating.share_of_peak ? fmt::format("{:.0f} %", 100.0 * *rating.share_of_peak) : "-";
}

}  // namespace ds::profile
