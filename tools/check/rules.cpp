#include "tools/check/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <sstream>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"

namespace ds::check {
namespace {

nlohmann::json rule_json(const Rule& rule) {
  return {{"id", rule.id},
          {"name", rule.name},
          {"group", group_name(rule.group)},
          {"severity", severity_name(rule.severity)},
          {"summary", rule.summary},
          {"why", rule.why},
          {"fix", rule.fix},
          {"fixable", rule.fixable},
          {"source", rule.source}};
}

[[noreturn]] void unknown(const std::string& what, const std::string& word) {
  std::vector<std::string> names;
  for (const Rule& rule : rules()) {
    names.emplace_back(rule.id);
    names.emplace_back(rule.name);
  }
  for (int group = 0; group < kRuleGroups; ++group) {
    names.emplace_back(group_name(static_cast<RuleGroup>(group)));
  }
  const std::string nearest = nearest_name(word, names);
  throw Error(ExitCode::kUsage, fmt::format("{}{} is no rule or group", what, quote_text(word)),
              nearest.empty() ? "deepseek-check rules lists them"
                              : fmt::format("did you mean {}?", nearest));
}

}  // namespace

void need_plain_format(const cli::Run& run) {
  if (run.format() == "text" || run.format() == "json") return;
  throw Error(ExitCode::kUsage, fmt::format("--format {} is for checks only", run.format()),
              "use text or json");
}

bool RuleFilter::Words::match(const Rule& rule) const {
  return std::find(rules.begin(), rules.end(), &rule) != rules.end() ||
         std::find(groups.begin(), groups.end(), rule.group) != groups.end();
}

RuleFilter::Words RuleFilter::parse(const char* flag, const std::string& text) {
  Words words;
  std::stringstream in(text);
  std::string word;
  while (std::getline(in, word, ',')) {
    const std::size_t begin = word.find_first_not_of(' ');
    if (begin == std::string::npos) continue;
    word = word.substr(begin, word.find_last_not_of(' ') + 1 - begin);
    if (const auto group = parse_group(word)) {
      words.groups.push_back(*group);
    } else if (const Rule* rule = find_rule(word)) {
      words.rules.push_back(rule);
    } else {
      unknown(fmt::format("{}: ", flag), word);
    }
  }
  return words;
}

RuleFilter::RuleFilter(const std::string& select, const std::string& ignore)
    : select_(parse("--select", select)), ignore_(parse("--ignore", ignore)) {}

bool RuleFilter::wants(const Rule& rule) const {
  const bool all = select_.rules.empty() && select_.groups.empty();
  return (all || select_.match(rule)) && !ignore_.match(rule);
}

void run_rules(const RulesSettings& settings, cli::Run& run) {
  need_plain_format(run);
  std::string text;
  nlohmann::json list = nlohmann::json::array();
  for (const Rule& rule : rules()) {
    text += fmt::format("{}  {:<8} {:<13} {:<24} {}\n", rule.id, severity_name(rule.severity),
                        group_name(rule.group), rule.name, rule.summary);
    list.push_back(rule_json(rule));
  }
  run.product(settings.markdown ? rules_markdown() : text, {{"rules", list}});
}

void run_explain(const ExplainSettings& settings, cli::Run& run) {
  need_plain_format(run);
  const Rule* rule = find_rule(settings.rule);
  if (rule == nullptr) unknown("", settings.rule);
  run.product(explain(*rule), rule_json(*rule));
}

}  // namespace ds::check
