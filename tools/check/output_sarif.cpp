#include <fmt/format.h>

#include <algorithm>

#include "tools/check/result.h"

namespace ds::check {
namespace {

using nlohmann::json;

// A path as a URI reference.
std::string uri(const std::string& path) {
  constexpr std::string_view kPlain =
      "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~/";
  std::string out = path.starts_with("/") ? "file://" : "";
  for (const char c : path) {
    if (kPlain.find(c) != std::string_view::npos) {
      out += c;
    } else {
      out += fmt::format("%{:02X}", static_cast<unsigned char>(c));
    }
  }
  return out;
}

json rule_json(const Rule& rule) {
  return {{"id", rule.id},
          {"name", rule.name},
          {"shortDescription", {{"text", rule.summary}}},
          {"fullDescription", {{"text", fmt::format("{} Otherwise: {}.", rule.summary, rule.why)}}},
          {"help", {{"text", fmt::format("{}. Source: {}.", rule.fix, rule.source)}}},
          {"defaultConfiguration", {{"level", severity_name(rule.severity)}}},
          {"properties", {{"group", group_name(rule.group)}}}};
}

json result_json(const Finding& finding, std::size_t index, const std::string& root) {
  json physical{{"artifactLocation", {{"uri", uri(finding.file.empty() ? root : finding.file)}}}};
  if (finding.line > 0) physical["region"] = {{"startLine", finding.line}};
  json location{{"physicalLocation", physical}};
  const std::string& place = finding.tensor.empty() ? finding.key : finding.tensor;
  if (!place.empty()) {
    location["logicalLocations"] = {
        {{"fullyQualifiedName", place}, {"kind", finding.tensor.empty() ? "member" : "object"}}};
  }
  return {{"ruleId", finding.rule->id},
          {"ruleIndex", index},
          {"level", severity_name(finding.rule->severity)},
          {"message", {{"text", fmt::format("{}. Fix: {}.", finding.message, finding.fix)}}},
          {"locations", {location}},
          {"partialFingerprints", {{"deepseekCheck/v1", fingerprint(finding, root)}}}};
}

}  // namespace

std::string as_sarif(const CheckResult& result) {
  json rule_list = json::array();
  for (const Rule& rule : rules()) rule_list.push_back(rule_json(rule));
  json results = json::array();
  for (const Finding& finding : result.findings) {
    const auto index = static_cast<std::size_t>(finding.rule - rules().data());
    results.push_back(result_json(finding, index, result.root(finding)));
  }
  const json document{
      {"$schema", "https://json.schemastore.org/sarif-2.1.0.json"},
      {"version", "2.1.0"},
      {"runs",
       {{{"tool",
          {{"driver",
            {{"name", "deepseek-check"}, {"version", result.version}, {"rules", rule_list}}}}},
         {"results", results},
         {"columnKind", "utf16CodeUnits"}}}}};
  return document.dump(2, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace ds::check
