#include "tools/check/canary_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "libcore/base/markup.h"

namespace ds::check {

namespace {

// An infinite end of an interval has no JSON number.
nlohmann::json number(double value) {
  return std::isfinite(value) ? nlohmann::json(value) : nlohmann::json(nullptr);
}

std::string gate_text(const GateResult& result) {
  const Measured& m = result.measured;
  std::string text = fmt::format("{} {}: {:.4g}, 95 % interval {:.4g} to {:.4g}", result.gate.text,
                                 verdict_name(result.verdict), m.value, m.low, m.high);
  if (result.verdict == Verdict::kUndecided) {
    text += result.rows_needed > 0
                ? fmt::format("; about {} rows would decide it", result.rows_needed)
                : "; the interval holds the bound";
  }
  return text;
}

}  // namespace

bool CanaryStage::passed() const {
  return std::all_of(gates.begin(), gates.end(), [](const GateResult& g) { return g.passed; });
}

nlohmann::json stage_json(const CanaryStage& stage) {
  nlohmann::json gates = nlohmann::json::array();
  for (const GateResult& result : stage.gates) {
    gates.push_back({{"gate", result.gate.text},
                     {"value", number(result.measured.value)},
                     {"interval", {number(result.measured.low), number(result.measured.high)}},
                     {"verdict", verdict_name(result.verdict)},
                     {"passed", result.passed}});
    if (result.verdict == Verdict::kUndecided && result.rows_needed > 0) {
      gates.back()["rows_needed"] = result.rows_needed;
    }
  }
  return {{"percent", stage.percent},
          {"n", stage.rows},
          {"metrics", stage.metrics},
          {"gates", gates},
          {"passed", stage.passed()}};
}

std::string stage_text(const CanaryStage& stage) {
  std::string text = fmt::format("{:g} % ({} rows): {}\n", stage.percent, stage.rows,
                                 stage.passed() ? "passed" : "failed");
  for (const GateResult& result : stage.gates) text += "  " + gate_text(result) + "\n";
  return text;
}

std::string canary_junit(const std::vector<CanaryStage>& stages) {
  std::string suites;
  std::size_t all = 0, all_failed = 0;
  for (const CanaryStage& stage : stages) {
    std::string cases;
    std::size_t failed = 0;
    for (const GateResult& result : stage.gates) {
      const std::string words = markup_text(gate_text(result));
      cases += fmt::format("    <testcase classname=\"canary\" name=\"{}\">\n",
                           markup_text(result.gate.text));
      if (result.passed) {
        cases += fmt::format("      <system-out>{}</system-out>\n", words);
      } else {
        ++failed;
        cases += fmt::format("      <failure type=\"{}\" message=\"{}\">{}</failure>\n",
                             verdict_name(result.verdict), words, words);
      }
      cases += "    </testcase>\n";
    }
    suites += fmt::format(
        "  <testsuite name=\"{:g} %\" tests=\"{}\" failures=\"{}\" errors=\"0\">\n{}  "
        "</testsuite>\n",
        stage.percent, stage.gates.size(), failed, cases);
    all += stage.gates.size();
    all_failed += failed;
  }
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"deepseek-check canary\" "
      "tests=\"{}\" failures=\"{}\" errors=\"0\">\n{}</testsuites>\n",
      all, all_failed, suites);
}

}  // namespace ds::check
