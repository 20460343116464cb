// What a check found, and its four forms on stdout.
#pragma once

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libcore/check/compatibility.h"
#include "libcore/check/detect.h"
#include "libcore/check/finding.h"
#include "libcore/check/fix.h"
#include "libcore/check/lengths.h"

namespace ds::check {

struct CheckedTarget {
  std::string path;  // as given
  TargetKind kind = TargetKind::kCheckpoint;
  std::string what;               // "91,991 tensors in 163 files", may be empty
  std::vector<RuleGroup> groups;  // that were looked at
  Lengths lengths;                // of a dataset's rows
  CompatibilityRows rows;         // with --compatibility
};

// What --fix did before the findings were looked for again.
struct FixResult {
  struct Written {
    std::string file;
    std::string backup;  // empty: nothing stood there, or another place was asked for
  };
  std::vector<Written> written;
  std::vector<Repair> repairs;
  std::vector<NotRepaired> left;
  std::int64_t hidden = 0;  // repairs and reasons beyond the kept ones
};

struct CheckResult {
  std::vector<CheckedTarget> targets;
  std::vector<Finding> findings;  // to be shown; section i + 1 belongs to targets[i]
  std::int64_t hidden = 0;        // not shown: over --max_findings or the limit of a rule
  std::int64_t known = 0;         // left out by --baseline
  std::int64_t errors = 0;
  std::int64_t warnings = 0;
  std::int64_t notes = 0;
  std::uint64_t files = 0;
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;
  double seconds = 0.0;
  std::string version;
  bool fail_on_warnings = false;
  // With --compatibility: what was asked, the hardware and this machine; else null.
  nlohmann::json compatibility;
  std::optional<FixResult> fix;

  bool fails(const Rule& rule) const {
    return rule.severity == Severity::kError ||
           (fail_on_warnings && rule.severity == Severity::kWarning);
  }
  const std::string& root(const Finding& finding) const {
    return targets[static_cast<std::size_t>(finding.section - 1)].path;
  }
};

// The fields of a finding as cli.md names them; those that do not apply are null.
nlohmann::json finding_json(const Finding& finding, const std::string& root);

// Fields of the event deepseek/repair/1.
nlohmann::json repair_json(const Repair& repair);

std::string as_text(const CheckResult& result, bool color);
nlohmann::json as_json(const CheckResult& result);
std::string as_junit(const CheckResult& result);
// SARIF 2.1.0.
std::string as_sarif(const CheckResult& result);

}  // namespace ds::check
