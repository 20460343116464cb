#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/markup.h"
#include "tools/check/result.h"

namespace ds::check {
// A suite for each path; in it a case for each finding, and one that passes for each group without
// any that fails.
std::string as_junit(const CheckResult& result) {
  std::string suites;
  std::size_t all_cases = 0;
  std::size_t all_failures = 0;
  for (std::size_t i = 0; i < result.targets.size(); ++i) {
    const CheckedTarget& target = result.targets[i];
    std::string cases;
    std::size_t count = 0;
    std::size_t failures = 0;
    for (const RuleGroup group : target.groups) {
      bool failed = false;
      for (const Finding& finding : result.findings) {
        if (finding.section != static_cast<int>(i) + 1 || finding.rule->group != group) continue;
        const Rule& rule = *finding.rule;
        std::string name = fmt::format("{} {}", rule.id, rule.name);
        for (const std::string& place : {finding.tensor, finding.key}) {
          if (!place.empty()) name += " " + place;
        }
        if (finding.line > 0) name += fmt::format(" line {}", finding.line);
        cases += fmt::format("    <testcase classname=\"{}\" name=\"{}\" file=\"{}\">\n",
                             group_name(group), markup_text(name), markup_text(finding.file));
        const std::string words =
            markup_text(fmt::format("{}\nfix: {}", finding.message, finding.fix));
        if (result.fails(rule)) {
          failed = true;
          ++failures;
          cases += fmt::format("      <failure type=\"{}\" message=\"{}\">{}</failure>\n",
                               severity_name(rule.severity), markup_text(finding.message), words);
        } else {
          cases += fmt::format("      <system-out>{}: {}</system-out>\n",
                               severity_name(rule.severity), words);
        }
        cases += "    </testcase>\n";
        ++count;
      }
      if (failed) continue;
      cases += fmt::format("    <testcase classname=\"{0}\" name=\"{0}\"/>\n", group_name(group));
      ++count;
    }
    suites += fmt::format("  <testsuite name=\"{}\" tests=\"{}\" failures=\"{}\" errors=\"0\">\n{}",
                          markup_text(target.path), count, failures, cases);
    suites += "  </testsuite>\n";
    all_cases += count;
    all_failures += failures;
  }
  return fmt::format(
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites name=\"deepseek-check\" "
      "tests=\"{}\" failures=\"{}\" errors=\"0\" time=\"{:.3f}\">\n{}</testsuites>\n",
      all_cases, all_failures, result.seconds, suites);
}

}  // namespace ds::check
