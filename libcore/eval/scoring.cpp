#include "libcore/eval/scoring.h"

#include <algorithm>
#include <cmath>

namespace ds {

namespace {
constexpr double kZ95 = 1.959963984540054;
}

std::pair<double, double> wilson_interval(std::int64_t correct, std::int64_t n) {
  if (n == 0) return {0.0, 1.0};
  const auto count = static_cast<double>(n);
  const double p = static_cast<double>(correct) / count;
  const double z2 = kZ95 * kZ95;
  const double centre = (p + z2 / (2.0 * count)) / (1.0 + z2 / count);
  const double half =
      kZ95 * std::sqrt(p * (1.0 - p) / count + z2 / (4.0 * count * count)) / (1.0 + z2 / count);
  return {std::max(0.0, centre - half), std::min(1.0, centre + half)};
}

std::pair<double, double> ratio_interval(const std::vector<double>& sums,
                                         const std::vector<double>& counts) {
  double sum = 0.0;
  double count = 0.0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    sum += sums[i];
    count += counts[i];
  }
  if (count == 0.0) return {0.0, 0.0};
  const double ratio = sum / count;
  const auto n = static_cast<double>(sums.size());
  double squares = 0.0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    const double residual = sums[i] - ratio * counts[i];
    squares += residual * residual;
  }
  if (n < 2.0) return {ratio, ratio};
  const double error = std::sqrt(squares * n / (n - 1.0)) / count;
  return {ratio - kZ95 * error, ratio + kZ95 * error};
}

std::string trimmed(const std::string& text) {
  const char* const kSpace = " \t\r\n";
  const std::size_t first = text.find_first_not_of(kSpace);
  if (first == std::string::npos) return "";
  return text.substr(first, text.find_last_not_of(kSpace) - first + 1);
}

}  // namespace ds
