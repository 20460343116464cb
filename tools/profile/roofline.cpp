#include "tools/profile/roofline.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

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

std::string peaks_text(const MachinePeaks& peaks, const Device& device) {
  std::string text =
      fmt::format("peak of this machine, {} threads: {:.1f} GFLOP/s (f32 matrix product), ",
                  device.threads(), peaks.f32_flops / 1e9);
  if (peaks.bf16_flops > 0.0) {
    text += fmt::format("{:.1f} GFLOP/s (bf16, {}), ", peaks.bf16_flops / 1e9,
                        has_native_bf16(device) ? "in the CPU's own bf16 instructions"
                                                : "widened to f32: no bf16 instructions");
  }
  return text + fmt::format("{:.1f} GB/s (memory, read and written)\n", peaks.memory_bytes / 1e9);
}

nlohmann::json peaks_json(const MachinePeaks& peaks, const Device& device) {
  nlohmann::json json{{"matrix_flops_per_second", peaks.matrix_flops},
                      {"f32_flops_per_second", peaks.f32_flops},
                      {"bf16_flops_per_second", nullptr},
                      {"bf16_products", has_native_bf16(device) ? "native" : "widened"},
                      {"memory_bytes_per_second", peaks.memory_bytes},
                      {"threads", device.threads()}};
  if (peaks.bf16_flops > 0.0) json["bf16_flops_per_second"] = peaks.bf16_flops;
  return json;
}

std::string rate_text(const Rating& rating) {
  if (rating.above_peak) return "above peak";
  return rating.flops_per_second ? fmt::format("{:.1f}", *rating.flops_per_second / 1e9) : "-";
}

std::string share_text(const Rating& rating) {
  return rating.share_of_peak ? fmt::format("{:.0f} %", 100.0 * *rating.share_of_peak) : "-";
}

}  // namespace ds::profile
