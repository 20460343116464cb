// Numeric comparison in three parts: NaN and infinity pattern, every element (absolute or
// relative), normalised squared error of the whole.
//   const Comparison c = compare(got, want, tolerance_for(DType::kF32, k), cols);
//   CHECK_MESSAGE(c.ok, c.text);
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "kernels/view.h"

namespace ds::test {

using kernels::ConstView;
using kernels::DType;
using kernels::View;

// Unit roundoff: half the distance from 1 to the next number.
inline double unit_roundoff(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return 0x1p-53;
    case DType::kF32:
      return 0x1p-24;
    case DType::kF16:
      return 0x1p-11;
    case DType::kBF16:
      return 0x1p-8;
    case DType::kF8E4M3:
      return 0x1p-4;
    default:
      return 0.0;
  }
}

struct Tolerance {
  double element = 0.0;  // of max(|want|, rms of want)
  double nse = 0.0;      // sum of (got - want)^2 / sum of want^2
};

// For a result of `length` additions in f32 (f64 for F64), rounded once to `output`, compared with
// an exact reference: one rounding plus a random walk of `length` steps, four deviations wide.
inline Tolerance tolerance_for(DType output, std::int64_t length, double factor = 1.0) {
  const double accumulate = unit_roundoff(output == DType::kF64 ? DType::kF64 : DType::kF32);
  const double steps = std::sqrt(static_cast<double>(length < 1 ? 1 : length));
  const double element = factor * (1.01 * unit_roundoff(output) + 4.0 * accumulate * steps);
  return {element, element * element};
}
inline Tolerance exactly() { return {0.0, 0.0}; }

struct Comparison {
  bool ok = true;
  double worst = 0.0;  // largest |got - want| / max(|want|, rms)
  double nse = 0.0;
  std::string text;
};

// `cols` only shapes the position in the text.
inline Comparison compare(std::span<const double> got, std::span<const double> want,
                          Tolerance tolerance, std::int64_t cols = 0) {
  Comparison result;
  char line[320];
  if (got.size() != want.size()) {
    result.ok = false;
    result.text =
        "sizes differ: got " + std::to_string(got.size()) + ", want " + std::to_string(want.size());
    return result;
  }
  double energy = 0.0;
  std::size_t finite = 0;
  for (const double w : want) {
    if (!std::isfinite(w)) continue;
    energy += w * w;
    ++finite;
  }
  const double rms = finite == 0 ? 0.0 : std::sqrt(energy / static_cast<double>(finite));
  std::size_t worst_at = 0;
  double error = 0.0;
  std::size_t bad = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double g = got[i];
    const double w = want[i];
    bool wrong = false;
    if (!std::isfinite(w) || !std::isfinite(g)) {
      wrong = std::isnan(w) ? !std::isnan(g) : g != w;
      if (wrong && (result.ok || std::isfinite(result.worst))) {
        result.worst = HUGE_VAL;
        worst_at = i;
      }
    } else {
      const double difference = std::fabs(g - w);
      const double size = std::fmax(std::fabs(w), rms);
      const double relative = difference == 0.0 ? 0.0 : (size > 0.0 ? difference / size : HUGE_VAL);
      error += difference * difference;
      wrong = relative > tolerance.element;
      if (relative > result.worst) {
        result.worst = relative;
        worst_at = i;
      }
    }
    if (wrong) {
      result.ok = false;
      ++bad;
    }
  }
  result.nse = error == 0.0 ? 0.0 : (energy > 0.0 ? error / energy : HUGE_VAL);
  if (!(result.nse <= tolerance.nse)) result.ok = false;
  if (got.empty()) {
    result.text = "nothing to compare";
    return result;
  }
  const std::size_t width = cols > 0 ? static_cast<std::size_t>(cols) : got.size();
  std::snprintf(line, sizeof line,
                "worst at [%zu, %zu]: got %.9g, want %.9g (%.3g of max(|want|, rms %.3g), limit "
                "%.3g); %zu of %zu elements outside; nse %.3g, limit %.3g",
                worst_at / width, worst_at % width, got[worst_at], want[worst_at], result.worst,
                rms, tolerance.element, bad, got.size(), result.nse, tolerance.nse);
  result.text = line;
  return result;
}

// Element (row, col) of a floating-point or integer view as f64.
inline double element(const ConstView& view, std::int64_t row, std::int64_t col) {
  const std::int64_t at = row * view.row_stride() + col;
  switch (view.dtype()) {
    case DType::kF64:
      return view.as<double>()[at];
    case DType::kF32:
      return static_cast<double>(view.as<float>()[at]);
    case DType::kBF16:
      return static_cast<double>(static_cast<float>(view.as<kernels::bf16>()[at]));
    case DType::kF16:
      return static_cast<double>(static_cast<float>(view.as<kernels::f16>()[at]));
    case DType::kF8E4M3:
      return static_cast<double>(static_cast<float>(view.as<kernels::fp8_e4m3>()[at]));
    case DType::kF8E8M0:
      return static_cast<double>(static_cast<float>(view.as<kernels::ue8m0>()[at]));
    case DType::kI32:
      return view.as<std::int32_t>()[at];
    default:
      throw std::invalid_argument("element: dtype not supported by the test");
  }
}
// All elements of a view, row by row.
inline std::vector<double> to_doubles(const ConstView& view) {
  std::vector<double> values;
  values.reserve(static_cast<std::size_t>(view.size()));
  for (std::int64_t r = 0; r < view.rows(); ++r) {
    for (std::int64_t c = 0; c < view.cols(); ++c) values.push_back(element(view, r, c));
  }
  return values;
}
inline Comparison compare(const ConstView& got, std::span<const double> want, Tolerance tolerance) {
  return compare(to_doubles(got), want, tolerance, got.cols());
}
inline Comparison compare(const ConstView& got, const ConstView& want, Tolerance tolerance) {
  return compare(to_doubles(got), to_doubles(want), tolerance, got.cols());
}

}  // namespace ds::test
