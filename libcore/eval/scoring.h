// The figures of an evaluation.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

namespace ds {

// 95 % interval of a share (Wilson score).
std::pair<double, double> wilson_interval(std::int64_t correct, std::int64_t n);
// 95 % interval of a mean of per-row sums over per-row counts (ratio estimator, normal
// approximation): rows are independent, tokens of a row are not.
std::pair<double, double> ratio_interval(const std::vector<double>& sums,
                                         const std::vector<double>& counts);

struct ClassScore {
  std::int64_t n = 0;
  std::int64_t correct = 0;
};

// Text without white space at both ends.
std::string trimmed(const std::string& text);

}  // namespace ds
