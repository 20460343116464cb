// Gates of a release: figures, intervals, verdicts.
#include "libcore/eval/gate.h"

#include <doctest/doctest.h>

#include <cmath>

#include "libcore/base/error.h"
#include "libcore/base/rng.h"

using namespace ds;  // NOLINT

namespace {

// n rows of which the first `worse` are right in the baseline only, the next `better` in the
// candidate only, the others in both.
std::vector<PairedRow> rows_of(int n, int worse, int better) {
  std::vector<PairedRow> rows(static_cast<std::size_t>(n));
  for (int i = 0; i < n; ++i) {
    PairedRow& row = rows[static_cast<std::size_t>(i)];
    row.baseline.correct = i < worse || i >= worse + better;
    row.candidate.correct = i >= worse;
    row.baseline.answer = row.baseline.correct ? "right" : "wrong";
    row.candidate.answer = row.candidate.correct ? "right" : "wrong";
  }
  return rows;
}

}  // namespace

TEST_CASE("gates are read, or refused with the nearest metric") {
  const Gate gate = parse_gate("loss_increase <= 0.02");
  CHECK(gate.text == "loss_increase<=0.02");
  CHECK(gate.metric == GateMetric::kLossIncrease);
  CHECK(gate.at_most);
  CHECK(gate.bound == 0.02);
  CHECK(needs_loss(gate));
  CHECK_FALSE(parse_gate("exact_match>0.8").at_most);
  CHECK(needs_answers(parse_gate("exact_match>0.8")));
  CHECK(needs_choices(parse_gate("choice_drop<=1e-2")));
  CHECK(parse_gate("length_drift<=0.2").metric == GateMetric::kLengthChange);
  for (const char* wrong : {"", "loss_increase", "loss_increase<=", "loss_increase<=x",
                            "loss_increase<=1x", "loss_increase<=nan", "<=3", "==", "loss=3"}) {
    CHECK_THROWS_AS(parse_gate(wrong), Error);
  }
  try {
    parse_gate("los_increase<=1");
    CHECK(false);
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kUsage);
    CHECK(error.hint() == "did you mean loss_increase?");
  }
}

TEST_CASE("an accuracy drop: clear ones are decided, few rows are not") {
  const Gate gate = parse_gate("exact_match_drop<=0.02");
  const auto verdict = [&](int n, int worse, int better) {
    return judge(gate, measure(gate.metric, rows_of(n, worse, better)));
  };
  CHECK(verdict(1000, 100, 0) == Verdict::kFailed);
  CHECK(verdict(1000, 2, 2) == Verdict::kPassed);
  CHECK(verdict(1000, 25, 5) == Verdict::kUndecided);
  CHECK(verdict(5, 1, 0) == Verdict::kUndecided);
  // The same answers, row for row: nothing to be unsure of, however few.
  CHECK(verdict(3, 0, 0) == Verdict::kPassed);
  const Measured drop = measure(gate.metric, rows_of(1000, 25, 5));
  CHECK(drop.value == doctest::Approx(0.02));
  CHECK(drop.low < 0.02);
  CHECK(drop.high > 0.02);
  const Gate floor = parse_gate("exact_match>=0.9");
  CHECK(judge(floor, measure(floor.metric, rows_of(1000, 10, 0))) == Verdict::kPassed);
  CHECK(judge(floor, measure(floor.metric, rows_of(1000, 300, 0))) == Verdict::kFailed);
  CHECK(judge(floor, measure(floor.metric, rows_of(20, 2, 0))) == Verdict::kUndecided);
}

TEST_CASE("the 95 % interval holds the truth about as often as it says") {
  // Pairs in which the baseline is right with 0.9 and the candidate loses 0.05 of those.
  const Rng rng(3, 0);
  std::uint64_t draw = 0;
  int held = 0;
  constexpr int kTrials = 400, kRows = 200;
  for (int trial = 0; trial < kTrials; ++trial) {
    std::vector<PairedRow> rows(kRows);
    for (PairedRow& row : rows) {
      row.baseline.correct = rng.uniform(draw++) < 0.9;
      row.candidate.correct =
          row.baseline.correct ? rng.uniform(draw++) >= 0.05 : rng.uniform(draw++) < 0.1;
      row.baseline.answer = row.baseline.correct ? "a" : "b";
      row.candidate.answer = row.candidate.correct ? "a" : "c";
    }
    const Measured drop = measure(GateMetric::kAccuracyDrop, rows);
    const double truth = 0.9 * 0.05 - 0.1 * 0.1;
    held += drop.low <= truth && truth <= drop.high ? 1 : 0;
  }
  // Four standard deviations of a binomial count around 95 %.
  CHECK(held >= static_cast<int>(kTrials * 0.95 - 4 * std::sqrt(kTrials * 0.05 * 0.95)));
  CHECK(held < kTrials);
}

TEST_CASE("a loss increase is paired: rows of very different loss do not hide it") {
  std::vector<PairedRow> rows;
  for (int i = 0; i < 50; ++i) {
    PairedRow row;
    row.baseline.targets = row.candidate.targets = 10.0;
    row.baseline.loss_sum = i * 7.0;
    row.candidate.loss_sum = row.baseline.loss_sum + 0.5 + 0.01 * (i % 3);
    rows.push_back(row);
  }
  const Measured increase = measure(GateMetric::kLossIncrease, rows);
  CHECK(increase.value == doctest::Approx(0.051).epsilon(0.01));
  CHECK(increase.high - increase.low < 0.001);
  CHECK(judge(parse_gate("loss_increase<=0.02"), increase) == Verdict::kFailed);
  CHECK(judge(parse_gate("loss_increase<=0.06"), increase) == Verdict::kPassed);
  // One row says nothing, unless nothing changed in it.
  rows.resize(1);
  const Measured one = measure(GateMetric::kLossIncrease, rows);
  CHECK(judge(parse_gate("loss_increase<=0.06"), one) == Verdict::kUndecided);
  rows[0].candidate = rows[0].baseline;
  CHECK(judge(parse_gate("loss_increase<=0"), measure(GateMetric::kLossIncrease, rows)) ==
        Verdict::kPassed);
}

TEST_CASE("length, latency, refusals, agreement") {
  std::vector<PairedRow> rows(100);
  for (int i = 0; i < 100; ++i) {
    PairedRow& row = rows[static_cast<std::size_t>(i)];
    row.baseline.tokens = 20 + i % 5;
    row.candidate.tokens = row.baseline.tokens / 2;
    row.baseline.seconds = 1.0 + 0.01 * (i % 7);
    row.candidate.seconds = 1.5 * row.baseline.seconds;
    row.baseline.answer = "yes";
    row.candidate.answer = i < 90 ? "yes" : "no";
    row.candidate.refused = i < 30;
  }
  CHECK(judge(parse_gate("length_change<=0.2"), measure(GateMetric::kLengthChange, rows)) ==
        Verdict::kFailed);
  CHECK(measure(GateMetric::kLatencyIncrease, rows).value == doctest::Approx(0.5));
  CHECK(judge(parse_gate("latency_increase<=0.1"), measure(GateMetric::kLatencyIncrease, rows)) ==
        Verdict::kFailed);
  CHECK(measure(GateMetric::kRefusalIncrease, rows).value == doctest::Approx(0.3));
  CHECK(measure(GateMetric::kAgreement, rows).value == doctest::Approx(0.9));
  for (const char* text : {"I'm sorry, but", "I\u2019m sorry", "Sorry, no", "As an AI model",
                           "\u62b1\u6b49\uff0c\u6211"}) {
    CHECK(looks_like_refusal(text));
  }
  for (const char* text : {"", "It is sorry weather", "The answer: I cannot", "icannot"}) {
    CHECK_FALSE(looks_like_refusal(text));
  }
}
