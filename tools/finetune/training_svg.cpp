#include "tools/finetune/training_svg.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

namespace ds::finetune {

namespace {

constexpr double kWidth = 860.0;
constexpr double kLeft = 64.0;
constexpr double kRight = 76.0;
constexpr double kTop = 40.0;
constexpr double kLossHeight = 260.0;
constexpr double kGap = 36.0;
constexpr double kRateHeight = 90.0;
constexpr double kHeight = kTop + kLossHeight + kGap + kRateHeight + 48.0;
constexpr std::size_t kMostPoints = 400;

struct Axis {
  double low = 0.0;
  double high = 1.0;
  double from = 0.0;  // pixel of low
  double to = 1.0;    // pixel of high
  double at(double value) const { return from + (value - low) / (high - low) * (to - from); }
};

// A step of 1, 2 or 5 times a power of ten that divides the span into about `count` parts.
double nice_step(double span, int count) {
  const double raw = span / count;
  const double power = std::pow(10.0, std::floor(std::log10(raw)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= raw) return factor * power;
  }
  return 10.0 * power;
}

std::vector<CurvePoint> thinned(const std::vector<CurvePoint>& points) {
  std::vector<CurvePoint> finite;
  for (const CurvePoint& p : points) {
    if (std::isfinite(p.loss)) finite.push_back(p);
  }
  if (finite.size() <= kMostPoints) return finite;
  std::vector<CurvePoint> means;
  for (std::size_t i = 0; i < kMostPoints; ++i) {
    const std::size_t begin = i * finite.size() / kMostPoints;
    const std::size_t end = (i + 1) * finite.size() / kMostPoints;
    CurvePoint mean = finite[end - 1];
    mean.loss = 0.0;
    for (std::size_t j = begin; j < end; ++j) mean.loss += finite[j].loss;
    mean.loss /= static_cast<double>(end - begin);
    means.push_back(mean);
  }
  return means;
}

template <class F>
std::string line(const std::vector<CurvePoint>& points, const Axis& x, const Axis& y, F value,
                 const char* style) {
  std::string path;
  for (const CurvePoint& p : points) {
    path += fmt::format("{}{:.1f},{:.1f}", path.empty() ? "" : " ",
                        x.at(static_cast<double>(p.step)), y.at(value(p)));
  }
  return fmt::format("<polyline class=\"{}\" points=\"{}\"/>\n", style, path);
}

std::string grid(const Axis& y, double step, const char* format) {
  std::string text;
  for (double v = std::ceil(y.low / step) * step; v <= y.high + 1e-12 * step; v += step) {
    text += fmt::format(
        "<line class=\"grid\" x1=\"{:.0f}\" x2=\"{:.0f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>"
        "<text class=\"end\" x=\"{:.0f}\" y=\"{:.1f}\">{}</text>\n",
        kLeft, kWidth - kRight, y.at(v), y.at(v), kLeft - 8, y.at(v) + 4,
        fmt::format(fmt::runtime(format), std::fabs(v) < 1e-9 * step ? 0.0 : v));
  }
  return text;
}

}  // namespace

std::string training_svg(const std::vector<CurvePoint>& all,
                         const std::vector<std::int64_t>& stage_ends) {
  const std::vector<CurvePoint> points = thinned(all);
  std::string svg = fmt::format(
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0:.0f}\" height=\"{1:.0f}\" "
      "viewBox=\"0 0 {0:.0f} {1:.0f}\" role=\"img\" aria-label=\"training loss and learning "
      "rates\">\n"
      "<style>svg{{background:#fff}}text{{font:12px sans-serif;fill:#333}}.end{{text-anchor:end}}"
      ".mid{{text-anchor:middle}}.grid{{stroke:#e4e4e4}}.stage{{stroke:#999;stroke-dasharray:4 4}}"
      "polyline{{fill:none;stroke-width:1.8}}.loss{{stroke:#1f5fbf}}.a{{stroke:#2c8a4b}}"
      ".b{{stroke:#c4622d}}</style>\n",
      kWidth, kHeight);
  if (points.empty()) {
    return svg +
           fmt::format("<text x=\"{}\" y=\"{}\">no finished step</text>\n</svg>\n", kLeft, kTop);
  }
  double loss_high = 0.0;
  double loss_low = points.front().loss;
  double rate_high = 0.0;
  for (const CurvePoint& p : points) {
    loss_high = std::max(loss_high, p.loss);
    loss_low = std::min(loss_low, p.loss);
    rate_high = std::max({rate_high, p.lr_a, p.lr_b});
  }
  if (loss_low < 0.4 * loss_high) loss_low = 0.0;
  if (loss_high <= loss_low) loss_high = loss_low + 1.0;
  if (rate_high <= 0.0) rate_high = 1.0;
  const double last = static_cast<double>(std::max<std::int64_t>(points.back().step, 2));
  const Axis x{1.0, last, kLeft, kWidth - kRight};
  const Axis loss{loss_low, loss_high, kTop + kLossHeight, kTop};
  const double rate_top = kTop + kLossHeight + kGap;
  const Axis rate{0.0, rate_high, rate_top + kRateHeight, rate_top};

  svg += grid(loss, nice_step(loss_high - loss_low, 6), "{:.3g}");
  svg += grid(rate, nice_step(rate_high, 2), "{:.2g}");
  for (std::size_t i = 0; i < stage_ends.size(); ++i) {
    const double at = x.at(static_cast<double>(stage_ends[i]));
    if (at > kWidth - kRight + 1.0) continue;
    svg += fmt::format(
        "<line class=\"stage\" x1=\"{0:.1f}\" x2=\"{0:.1f}\" y1=\"{1:.0f}\" y2=\"{2:.0f}\"/>"
        "<text class=\"end\" x=\"{3:.1f}\" y=\"{4:.0f}\">stage {5}</text>\n",
        at, kTop, rate_top + kRateHeight, at - 4, kTop + 12, i + 1);
  }
  svg += line(
      points, x, loss, [](const CurvePoint& p) { return p.loss; }, "loss");
  svg += line(
      points, x, rate, [](const CurvePoint& p) { return p.lr_a; }, "a");
  svg += line(
      points, x, rate, [](const CurvePoint& p) { return p.lr_b; }, "b");
  const double step = std::max(1.0, nice_step(last - 1.0, 8));
  for (double s = 0.0; s <= last; s += step) {
    if (s < 1.0) continue;
    svg += fmt::format("<text class=\"mid\" x=\"{:.1f}\" y=\"{:.0f}\">{:.0f}</text>\n", x.at(s),
                       rate_top + kRateHeight + 18, s);
  }
  svg += fmt::format(
      "<text x=\"{0:.0f}\" y=\"22\">training loss a target token</text>"
      "<text x=\"{0:.0f}\" y=\"{1:.0f}\">learning rate: A (green), B (orange)</text>"
      "<text class=\"mid\" x=\"{2:.0f}\" y=\"{3:.0f}\">step</text>"
      "<text x=\"{4:.1f}\" y=\"{5:.1f}\">{6:.4f}</text>\n</svg>\n",
      kLeft, rate_top - 10, (kLeft + kWidth - kRight) / 2, kHeight - 8, kWidth - kRight + 6,
      loss.at(points.back().loss) + 4, points.back().loss);
  return svg;
}

}  // namespace ds::finetune
