// Two models on the same rows: what changed, how sure that is, and whether a release may go on.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ds {

// One row as one model handled it. What was not measured stays at its default.
struct RowOutcome {
  double loss_sum = 0.0;  // of -log p over the targets
  double targets = 0.0;
  bool correct = false;     // greedy answer equals the reference, or the choice is right
  bool refused = false;     // the answer is a refusal
  std::int64_t tokens = 0;  // of the answer
  double seconds = 0.0;     // of the batch it is the first row of; 0 for the others
  std::string answer;
  bool operator==(const RowOutcome&) const = default;
};
struct PairedRow {
  RowOutcome baseline, candidate;
};

enum class GateMetric {
  kLossIncrease,     // mean loss a target token, candidate - baseline (nats)
  kLoss,             // of the candidate
  kAccuracyDrop,     // share of right rows, baseline - candidate
  kAccuracy,         // of the candidate
  kRefusalIncrease,  // share of refusals, candidate - baseline
  kLengthChange,     // |mean tokens of an answer, candidate / baseline - 1|
  kLatencyIncrease,  // mean seconds of a row, candidate / baseline - 1
  kAgreement,        // share of rows with the same answer
};

// "loss_increase<=0.02": a metric, one of <= < >= >, a number.
struct Gate {
  std::string text;
  GateMetric metric = GateMetric::kLossIncrease;
  bool at_most = true;  // <= or <
  double bound = 0.0;
};
// Throws Error(kUsage) naming the nearest metric.
Gate parse_gate(const std::string& text);
// exact_match_drop and choice_drop name the same figure; which one is measured is what they ask
// for.
bool needs_answers(const Gate& gate);
bool needs_choices(const Gate& gate);
bool needs_loss(const Gate& gate);

// A figure with its 95 % interval. With too few rows to say anything the interval is infinite.
struct Measured {
  double value = 0.0;
  double low = 0.0, high = 0.0;
};
// Rows are the sample; a row's two outcomes are paired. Shares use the interval of Agresti and Min
// for paired proportions, so that a few equal rows prove little; where all answers are equal, text
// for text, there is no difference to be unsure of.
Measured measure(GateMetric metric, std::span<const PairedRow> rows);

enum class Verdict { kPassed, kFailed, kUndecided };
// Passed or failed when the whole interval lies on one side of the bound.
Verdict judge(const Gate& gate, const Measured& measured);
// About how many rows would bring the interval to one side of the bound, were the value to stay; 0
// when no number of rows would do.
std::int64_t rows_needed(const Gate& gate, const Measured& measured, std::size_t rows);

std::string_view verdict_name(Verdict verdict);

// Whether an answer begins as refusals do (English and Chinese).
bool looks_like_refusal(std::string_view answer);

}  // namespace ds
