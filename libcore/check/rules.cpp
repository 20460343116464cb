#include "libcore/check/rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

#include "libcore/base/error.h"
#include "libcore/check/rule_tables.h"

namespace ds::check {
namespace {

constexpr std::array<std::string_view, kRuleGroups> kGroups{
    "container", "architecture", "quantisation",  "tokenizer", "template",
    "dataset",   "adapter",      "compatibility", "hardware"};

constexpr std::array<std::string_view, kRuleGroups> kGroupTitles{
    "Container: files, headers, index",
    "Architecture: config.json, and the tensors it demands",
    "Quantisation: FP8 weights and their scales",
    "Tokenizer: vocabulary, special tokens, settings",
    "Template: the chat template",
    "Dataset: rows of training and evaluation data",
    "Adapter: PEFT adapters and their base",
    "Compatibility: another generation, a stack, this machine",
    "Hardware: given GPUs"};

std::vector<Rule> all_rules() {
  std::vector<Rule> all;
  for (const auto table :
       {container_rules(), architecture_rules(), quantisation_rules(), tokenizer_rules(),
        dataset_rules(), adapter_rules(), compatibility_rules(), gguf_rules(), inference_rules()}) {
    all.insert(all.end(), table.begin(), table.end());
  }
  std::stable_sort(all.begin(), all.end(),
                   [](const Rule& a, const Rule& b) { return a.id < b.id; });
  return all;
}

bool same_word(std::string_view a, std::string_view b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](unsigned char x, unsigned char y) {
    return std::tolower(x == '_' ? '-' : x) == std::tolower(y == '_' ? '-' : y);
  });
}

}  // namespace

std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::kError:
      return "error";
    case Severity::kWarning:
      return "warning";
    default:
      return "note";
  }
}

std::string_view group_name(RuleGroup group) { return kGroups[static_cast<std::size_t>(group)]; }

std::optional<RuleGroup> parse_group(std::string_view name) {
  if (same_word(name, "quantization")) return RuleGroup::kQuantisation;
  for (std::size_t i = 0; i < kGroups.size(); ++i) {
    if (same_word(name, kGroups[i])) return static_cast<RuleGroup>(i);
  }
  return std::nullopt;
}

const std::vector<Rule>& rules() {
  static const std::vector<Rule> all = all_rules();
  return all;
}

const Rule* find_rule(std::string_view id_or_name) {
  for (const Rule& rule : rules()) {
    if (same_word(rule.id, id_or_name) || same_word(rule.name, id_or_name)) return &rule;
  }
  return nullptr;
}

const Rule& rule_named(std::string_view name) {
  for (const Rule& rule : rules()) {
    if (rule.name == name) return rule;
  }
  throw Error(ExitCode::kInternal, fmt::format("there is no rule named '{}'", name));
}

std::string rules_markdown() {
  std::string text =
      "# Rules of deepseek-check\n\n"
      "Made by `deepseek-check rules --markdown`; a test compares this page with the program. Ids "
      "are stable. Errors and\n"
      "warnings fail a run as `--fail_on` says, notes never do.\n";
  for (std::size_t group = 0; group < kGroups.size(); ++group) {
    bool any = false;
    for (const Rule& rule : rules()) {
      if (static_cast<std::size_t>(rule.group) != group) continue;
      if (!any) text += fmt::format("\n## {}\n", kGroupTitles[group]);
      any = true;
      text += fmt::format(
          "\n### {} {}\n\n**{}.** {}\n\n- Why: {}\n- Fix: {}\n{}- Source: {}\n", rule.id, rule.name,
          severity_name(rule.severity), rule.summary, rule.why, rule.fix,
          rule.fixable ? "- Repaired by `--fix` where nothing is in doubt\n" : "", rule.source);
    }
  }
  return text;
}

std::string explain(const Rule& rule) {
  return fmt::format(
      "{} {} ({}, {})\n\n{}\n\nwhy     {}\nfix     {}\n{}source  {}\n", rule.id, rule.name,
      group_name(rule.group), severity_name(rule.severity), rule.summary, rule.why, rule.fix,
      rule.fixable ? "        --fix does it where nothing is in doubt\n" : "", rule.source);
}

}  // namespace ds::check
