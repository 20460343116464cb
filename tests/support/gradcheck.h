// Gradients against central differences in double.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "kernels/view.h"
#include "tests/support/buffers.h"
#include "tests/support/compare.h"

namespace ds::test {

// Of |analytic - numeric| relative to max(|analytic|, rms of analytic).
inline constexpr double kGradientLimit = 1e-7;

// d loss / d x of every element of the F64 view `x` by the five-point central difference, whose
// truncation error is of order step^4. `loss` returns a double that depends on x; x is restored.
template <class Loss>
std::vector<double> numeric_gradient(const kernels::View& x, Loss&& loss) {
  constexpr double kStep = 2e-4;
  std::vector<double> gradient;
  gradient.reserve(static_cast<std::size_t>(x.size()));
  for (std::int64_t r = 0; r < x.rows(); ++r) {
    for (std::int64_t c = 0; c < x.cols(); ++c) {
      double* at = x.as<double>() + r * x.row_stride() + c;
      const double before = *at;
      const auto moved = [&](double steps) {
        *at = before + steps * kStep;
        return loss();
      };
      const double near = moved(1.0) - moved(-1.0);
      const double far = moved(2.0) - moved(-2.0);
      *at = before;
      gradient.push_back((8.0 * near - far) / (12.0 * kStep));
    }
  }
  return gradient;
}

// Compares the analytic gradient of one operand with central differences.
template <class Loss>
Comparison check_gradient(const kernels::View& x, const kernels::ConstView& analytic, Loss&& loss) {
  const std::vector<double> numeric = numeric_gradient(x, loss);
  return compare(numeric, to_doubles(analytic), {kGradientLimit, kGradientLimit * kGradientLimit},
                 analytic.cols());
}

// sum of value * direction, the scalar loss of the gradient tests.
inline double inner(const kernels::ConstView& value, const kernels::ConstView& direction) {
  double sum = 0.0;
  for (std::int64_t r = 0; r < value.rows(); ++r) {
    for (std::int64_t c = 0; c < value.cols(); ++c) {
      sum += element(value, r, c) * element(direction, r, c);
    }
  }
  return sum;
}

}  // namespace ds::test
