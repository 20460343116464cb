#include "libcore/eval/gate.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <limits>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/eval/scoring.h"

namespace ds {

namespace {

constexpr double kZ95 = 1.959963984540054;
constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct MetricName {
  std::string_view name;
  GateMetric metric;
};
constexpr std::array<MetricName, 11> kMetrics{{{"loss_increase", GateMetric::kLossIncrease},
                                               {"loss", GateMetric::kLoss},
                                               {"exact_match_drop", GateMetric::kAccuracyDrop},
                                               {"choice_drop", GateMetric::kAccuracyDrop},
                                               {"exact_match", GateMetric::kAccuracy},
                                               {"choice", GateMetric::kAccuracy},
                                               {"refusal_increase", GateMetric::kRefusalIncrease},
                                               {"length_change", GateMetric::kLengthChange},
                                               {"length_drift", GateMetric::kLengthChange},
                                               {"latency_increase", GateMetric::kLatencyIncrease},
                                               {"agreement", GateMetric::kAgreement}}};

std::string_view metric_name(const Gate& gate) {
  return std::string_view(gate.text).substr(0, gate.text.find_first_of("<> "));
}

bool same_answers(std::span<const PairedRow> rows) {
  return std::all_of(rows.begin(), rows.end(), [](const PairedRow& row) {
    return row.baseline.answer == row.candidate.answer &&
           row.baseline.correct == row.candidate.correct;
  });
}

Measured ratio(const std::vector<double>& sums, const std::vector<double>& counts) {
  const auto [low, high] = ratio_interval(sums, counts);
  double sum = 0.0, count = 0.0;
  for (std::size_t i = 0; i < sums.size(); ++i) {
    sum += sums[i];
    count += counts[i];
  }
  const double value = count > 0.0 ? sum / count : 0.0;
  const bool flat = std::all_of(sums.begin(), sums.end(), [](double x) { return x == 0.0; });
  if (sums.size() < 2 && !flat) return {value, -kInfinity, kInfinity};
  return {value, low, high};
}

// share(`more`) - share(`less`) over paired rows (Agresti and Min 2005: half a row added to each of
// the four cells).
template <class More, class Less>
Measured share_difference(std::span<const PairedRow> rows, More more, Less less) {
  double only_more = 0.5, only_less = 0.5;
  for (const PairedRow& row : rows) {
    const bool a = more(row), b = less(row);
    if (a && !b) only_more += 1.0;
    if (b && !a) only_less += 1.0;
  }
  const auto n = static_cast<double>(rows.size());
  const double value = n > 0.0 ? (only_more - only_less) / n : 0.0;
  if (same_answers(rows)) return {value, value, value};
  const double centre = (only_more - only_less) / (n + 2.0);
  const double variance =
      (only_more + only_less - (only_more - only_less) * (only_more - only_less) / (n + 2.0)) /
      ((n + 2.0) * (n + 2.0));
  const double half = kZ95 * std::sqrt(variance);
  return {value, std::max(-1.0, centre - half), std::min(1.0, centre + half)};
}

// mean(candidate) / mean(baseline) - 1, by the delta method over paired rows.
template <class Figure>
Measured relative_change(std::span<const PairedRow> rows, Figure figure) {
  std::vector<double> candidate, baseline;
  for (const PairedRow& row : rows) {
    candidate.push_back(figure(row.candidate));
    baseline.push_back(figure(row.baseline));
  }
  double below = 0.0;
  for (const double x : baseline) below += x;
  if (below == 0.0) {
    const bool none =
        std::all_of(candidate.begin(), candidate.end(), [](double x) { return x == 0.0; });
    return none ? Measured{} : Measured{kInfinity, -kInfinity, kInfinity};
  }
  const bool equal = candidate == baseline;
  Measured out = ratio(candidate, baseline);
  if (equal) out = {1.0, 1.0, 1.0};
  return {out.value - 1.0, out.low - 1.0, out.high - 1.0};
}

Measured magnitude(const Measured& change) {
  const double value = std::fabs(change.value);
  if (change.low <= 0.0 && change.high >= 0.0) {
    return {value, 0.0, std::max(std::fabs(change.low), std::fabs(change.high))};
  }
  return {value, std::min(std::fabs(change.low), std::fabs(change.high)),
          std::max(std::fabs(change.low), std::fabs(change.high))};
}

template <class Hit>
Measured share(std::span<const PairedRow> rows, Hit hit) {
  const auto count = static_cast<std::int64_t>(std::count_if(rows.begin(), rows.end(), hit));
  const auto n = static_cast<std::int64_t>(rows.size());
  const auto [low, high] = wilson_interval(count, n);
  return {n > 0 ? static_cast<double>(count) / static_cast<double>(n) : 0.0, low, high};
}

}  // namespace

Gate parse_gate(const std::string& text) {
  Gate gate;
  gate.text = text;
  gate.text.erase(std::remove(gate.text.begin(), gate.text.end(), ' '), gate.text.end());
  const std::size_t at = gate.text.find_first_of("<>");
  const std::string name = gate.text.substr(0, at);
  const auto known = std::find_if(kMetrics.begin(), kMetrics.end(),
                                  [&](const MetricName& m) { return m.name == name; });
  if (known == kMetrics.end()) {
    std::vector<std::string> names;
    for (const MetricName& m : kMetrics) names.emplace_back(m.name);
    const std::string nearest = nearest_name(name, names);
    throw Error(ExitCode::kUsage,
                fmt::format("--gate {}: no metric {}", quote_text(text), quote_text(name)),
                nearest.empty() ? "known: loss_increase, loss, exact_match_drop, choice_drop, "
                                  "exact_match, choice, refusal_increase, length_change, "
                                  "latency_increase, agreement"
                                : fmt::format("did you mean {}?", nearest));
  }
  gate.metric = known->metric;
  char* end = nullptr;
  if (at != std::string::npos) {
    gate.at_most = gate.text[at] == '<';
    const std::size_t number = at + (gate.text[at + 1] == '=' ? 2 : 1);
    gate.bound = std::strtod(gate.text.c_str() + number, &end);
    if (end == gate.text.c_str() + number) end = nullptr;
  }
  if (end == nullptr || *end != '\0' || !std::isfinite(gate.bound)) {
    throw Error(ExitCode::kUsage, fmt::format("--gate {} is no gate", quote_text(text)),
                "write it as --gate \"loss_increase<=0.02\"");
  }
  return gate;
}

bool needs_choices(const Gate& gate) { return metric_name(gate).starts_with("choice"); }
bool needs_loss(const Gate& gate) {
  return gate.metric == GateMetric::kLossIncrease || gate.metric == GateMetric::kLoss;
}
bool needs_answers(const Gate& gate) {
  return !needs_choices(gate) && !needs_loss(gate) && gate.metric != GateMetric::kLatencyIncrease;
}

Measured measure(GateMetric metric, std::span<const PairedRow> rows) {
  switch (metric) {
    case GateMetric::kLossIncrease: {
      std::vector<double> sums, counts;
      for (const PairedRow& row : rows) {
        sums.push_back(row.candidate.loss_sum - row.baseline.loss_sum);
        counts.push_back(row.baseline.targets);
      }
      return ratio(sums, counts);
    }
    case GateMetric::kLoss: {
      std::vector<double> sums, counts;
      for (const PairedRow& row : rows) {
        sums.push_back(row.candidate.loss_sum);
        counts.push_back(row.candidate.targets);
      }
      return ratio(sums, counts);
    }
    case GateMetric::kAccuracyDrop:
      return share_difference(
          rows, [](const PairedRow& r) { return r.baseline.correct; },
          [](const PairedRow& r) { return r.candidate.correct; });
    case GateMetric::kAccuracy:
      return share(rows, [](const PairedRow& r) { return r.candidate.correct; });
    case GateMetric::kRefusalIncrease:
      return share_difference(
          rows, [](const PairedRow& r) { return r.candidate.refused; },
          [](const PairedRow& r) { return r.baseline.refused; });
    case GateMetric::kLengthChange:
      return magnitude(
          relative_change(rows, [](const RowOutcome& o) { return static_cast<double>(o.tokens); }));
    case GateMetric::kLatencyIncrease: {
      // Rows without a time of their own belong to a batch that another row stands for.
      std::vector<PairedRow> timed;
      for (const PairedRow& row : rows) {
        if (row.baseline.seconds > 0.0) timed.push_back(row);
      }
      return relative_change(timed, [](const RowOutcome& o) { return o.seconds; });
    }
    case GateMetric::kAgreement:
      return share(rows,
                   [](const PairedRow& r) { return r.baseline.answer == r.candidate.answer; });
  }
  return {};
}

Verdict judge(const Gate& gate, const Measured& measured) {
  // One rule for both directions: how far beyond the bound.
  const double sign = gate.at_most ? 1.0 : -1.0;
  const double worst = sign * (gate.at_most ? measured.high : measured.low);
  const double best = sign * (gate.at_most ? measured.low : measured.high);
  if (worst <= sign * gate.bound) return Verdict::kPassed;
  if (best > sign * gate.bound) return Verdict::kFailed;
  return Verdict::kUndecided;
}

std::int64_t rows_needed(const Gate& gate, const Measured& measured, std::size_t rows) {
  const double distance = std::fabs(gate.bound - measured.value);
  const double half = (measured.high - measured.low) / 2.0;
  if (!(distance > 0.0) || !std::isfinite(half)) return 0;
  const double factor = half / distance;
  return static_cast<std::int64_t>(std::ceil(static_cast<double>(rows) * factor * factor));
}

std::string_view verdict_name(Verdict verdict) {
  return verdict == Verdict::kPassed   ? "passed"
         : verdict == Verdict::kFailed ? "failed"
                                       : "undecided";
}

bool looks_like_refusal(std::string_view answer) {
  constexpr std::array<std::string_view, 14> kStarts{"i'm sorry",
                                                     "i am sorry",
                                                     "sorry,",
                                                     "i cannot",
                                                     "i can't",
                                                     "i can not",
                                                     "i'm unable",
                                                     "i am unable",
                                                     "as an ai",
                                                     "i won't",
                                                     "\u62b1\u6b49",
                                                     "\u5f88\u62b1\u6b49",
                                                     "\u5bf9\u4e0d\u8d77",
                                                     "\u6211\u65e0\u6cd5"};
  std::string start;
  for (const char c : answer.substr(0, 32)) {
    start += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  }
  // A typographic apostrophe is one.
  for (std::size_t at = start.find("\u2019"); at != std::string::npos; at = start.find("\u2019")) {
    start.replace(at, std::string_view("\u2019").size(), "'");
  }
  return std::any_of(kStarts.begin(), kStarts.end(),
                     [&](std::string_view s) { return start.starts_with(s); });
}

}  // namespace ds
