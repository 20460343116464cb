// deepseek-check rules, deepseek-check explain RULE
#pragma once

#include "libcore/check/rules.h"
#include "libcore/cli/run.h"
#include "tools/check/options.h"

namespace ds::check {

void run_rules(const RulesSettings& settings, cli::Run& run);
// Throws Error(kUsage) naming the nearest rule.
void run_explain(const ExplainSettings& settings, cli::Run& run);

// --select and --ignore: which rules are wanted. Throws Error(kUsage) for a word that is no id,
// name or group.
class RuleFilter {
 public:
  RuleFilter(const std::string& select, const std::string& ignore);
  bool wants(const Rule& rule) const;

 private:
  struct Words {
    std::vector<const Rule*> rules;
    std::vector<RuleGroup> groups;
    bool match(const Rule& rule) const;
  };
  static Words parse(const char* flag, const std::string& text);
  Words select_, ignore_;
};

// Refuses the formats that only a check has.
void need_plain_format(const cli::Run& run);

}  // namespace ds::check
