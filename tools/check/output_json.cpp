#include "tools/check/result.h"

namespace ds::check {
namespace {

nlohmann::json or_null(const std::string& text) {
  return text.empty() ? nlohmann::json() : nlohmann::json(text);
}

nlohmann::json lengths_json(const Lengths& lengths) {
  nlohmann::json histogram = nlohmann::json::array();
  for (const Lengths::Bucket& bucket : lengths.buckets) {
    histogram.push_back({{"from", bucket.from}, {"to", bucket.to}, {"rows", bucket.rows}});
  }
  return {{"unit", lengths.unit},  {"rows", lengths.rows}, {"p50", lengths.p50},
          {"p90", lengths.p90},    {"p99", lengths.p99},   {"max", lengths.max},
          {"histogram", histogram}};
}

nlohmann::json row_list(const CheckResult& result) {
  nlohmann::json rows = nlohmann::json::array();
  for (const CheckedTarget& target : result.targets) {
    for (const CompatibilityRow& row : target.rows) {
      const Rule* rule = row.rule.empty() ? nullptr : &rule_named(row.rule);
      rows.push_back({{"path", target.path},
                      {"section", row.section},
                      {"subject", row.subject},
                      {"requirement", row.requirement},
                      {"verdict", verdict_name(row.verdict)},
                      {"detail", row.detail},
                      {"action", or_null(row.action)},
                      {"source", row.source},
                      {"rule", rule == nullptr ? nlohmann::json() : nlohmann::json(rule->id)}});
    }
  }
  return rows;
}

}  // namespace

nlohmann::json finding_json(const Finding& finding, const std::string& root) {
  return {{"rule", finding.rule->id},
          {"name", finding.rule->name},
          {"group", group_name(finding.rule->group)},
          {"severity", severity_name(finding.rule->severity)},
          {"file", or_null(finding.file)},
          {"line", finding.line > 0 ? nlohmann::json(finding.line) : nlohmann::json()},
          {"tensor", or_null(finding.tensor)},
          {"key", or_null(finding.key)},
          {"message", finding.message},
          {"found", or_null(finding.found)},
          {"expected", or_null(finding.expected)},
          {"fix", finding.fix},
          {"fixable", finding.rule->fixable},
          {"fingerprint", fingerprint(finding, root)}};
}

nlohmann::json repair_json(const Repair& repair) {
  return {{"rule", repair.rule->id},
          {"name", repair.rule->name},
          {"file", repair.file},
          {"line", repair.line > 0 ? nlohmann::json(repair.line) : nlohmann::json()},
          {"key", or_null(repair.key)},
          {"before", repair.before},
          {"after", repair.after}};
}

nlohmann::json as_json(const CheckResult& result) {
  nlohmann::json findings = nlohmann::json::array();
  for (const Finding& finding : result.findings) {
    findings.push_back(finding_json(finding, result.root(finding)));
  }
  nlohmann::json targets = nlohmann::json::array();
  for (const CheckedTarget& target : result.targets) {
    nlohmann::json groups = nlohmann::json::array();
    for (const RuleGroup group : target.groups) groups.push_back(group_name(group));
    targets.push_back(
        {{"path", target.path}, {"kind", target_name(target.kind)}, {"groups", groups}});
    if (target.lengths.rows > 0) targets.back()["lengths"] = lengths_json(target.lengths);
  }
  nlohmann::json document{{"findings", findings},
                          {"targets", targets},
                          {"summary",
                           {{"errors", result.errors},
                            {"warnings", result.warnings},
                            {"notes", result.notes},
                            {"hidden", result.hidden},
                            {"known", result.known},
                            {"files", result.files},
                            {"tensors", result.tensors},
                            {"bytes", result.bytes},
                            {"seconds", result.seconds}}}};
  if (!result.compatibility.is_null()) {
    document["compatibility"] = result.compatibility;
    document["compatibility"]["rows"] = row_list(result);
  }
  if (result.fix) {
    const FixResult& fix = *result.fix;
    nlohmann::json& out = document["fix"];
    out = {{"written", nlohmann::json::array()},
           {"repairs", nlohmann::json::array()},
           {"not_repaired", nlohmann::json::array()},
           {"hidden", fix.hidden}};
    for (const auto& [file, backup] : fix.written) {
      out["written"].push_back({{"file", file}, {"backup", or_null(backup)}});
    }
    for (const Repair& repair : fix.repairs) out["repairs"].push_back(repair_json(repair));
    for (const NotRepaired& one : fix.left) {
      out["not_repaired"].push_back(
          {{"rule", one.rule->id},
           {"name", one.rule->name},
           {"file", one.file},
           {"line", one.line > 0 ? nlohmann::json(one.line) : nlohmann::json()},
           {"reason", one.reason}});
    }
  }
  return document;
}

}  // namespace ds::check
