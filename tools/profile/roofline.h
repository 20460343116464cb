// Achieved rates against what the machine reaches at best.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "libcore/nn/machine_peaks.h"

namespace ds::profile {

// `bound` is the larger of the times the arithmetic and the bytes need at their peaks ("compute",
// "memory"), or "overhead" when the measured time is more than five times that; "" without time.
// A rate above the peak is an error of the count or of the peak: it is flagged and absent.
struct Rating {
  std::optional<double> flops_per_second;
  std::optional<double> share_of_peak;  // of the matrix peak
  std::string bound;
  bool above_peak = false;
};
Rating rate(double flops, double bytes, double seconds, const MachinePeaks& peaks);

// "peak of this machine, 2 threads: 180.0 GFLOP/s (f32 matrix product), ..." with a line end.
std::string peaks_text(const MachinePeaks& peaks, const Device& device);
nlohmann::json peaks_json(const MachinePeaks& peaks, const Device& device);

// "12.3", or "above peak", or "-".
std::string rate_text(const Rating& rating);
std::string share_text(const Rating& rating);

}  // namespace ds::profile
