// What deepseek-check knows to be wrong: one entry a rule. docs/rules.md is generated from it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ds::check {

enum class Severity { kError, kWarning, kNote };
std::string_view severity_name(Severity severity);  // "error", "warning", "note"

enum class RuleGroup {
  kContainer,
  kArchitecture,
  kQuantisation,
  kTokenizer,
  kTemplate,
  kDataset,
  kAdapter,
  kCompatibility,
  kHardware,
};
inline constexpr int kRuleGroups = 9;
std::string_view group_name(RuleGroup group);  // "container", ...
std::optional<RuleGroup> parse_group(std::string_view name);

// Ids are stable: a rule that goes leaves its number unused. Notes never fail a run.
struct Rule {
  std::string_view id;    // "DS021"
  std::string_view name;  // "missing-shard"
  RuleGroup group = RuleGroup::kContainer;
  Severity severity = Severity::kError;
  std::string_view summary;  // what the rule finds, one line
  std::string_view why;      // what goes wrong otherwise
  std::string_view fix;      // what to do about it
  std::string_view source;   // where the fact comes from
  bool fixable = false;      // --fix knows the one right answer (libcore/check/fix.h)
};

// All rules, by id.
const std::vector<Rule>& rules();
// By id (any case) or by name; nullptr when there is none.
const Rule* find_rule(std::string_view id_or_name);
// The same for names that must exist. Throws Error(kInternal).
const Rule& rule_named(std::string_view name);

// The text of docs/rules.md.
std::string rules_markdown();
// One rule for people.
std::string explain(const Rule& rule);

}  // namespace ds::check
