#include "libcore/check/finding.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "libcore/base/format.h"

namespace ds::check {

void Findings::add(std::string_view rule, Finding finding) {
  finding.rule = &rule_named(rule);
  if (wanted_ && !wanted_(*finding.rule)) return;
  if (finding.fix.empty()) finding.fix = finding.rule->fix;
  if (++counts_[finding.rule] > kKeptPerRule) {
    ++dropped_[std::string(finding.rule->id)];
    return;
  }
  kept_.push_back({section_, std::move(finding)});
}

bool Findings::has(std::string_view rule) const { return counts_.count(&rule_named(rule)) > 0; }

std::vector<Finding> Findings::sorted() const {
  std::vector<const Kept*> order;
  for (const Kept& kept : kept_) order.push_back(&kept);
  const auto key = [](const Kept* kept) {
    const Finding& f = kept->finding;
    return std::tie(kept->section, f.rule->id, f.file, f.line, f.tensor, f.key, f.message);
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](const Kept* a, const Kept* b) { return key(a) < key(b); });
  std::vector<Finding> findings;
  findings.reserve(order.size());
  for (const Kept* kept : order) findings.push_back(kept->finding);
  return findings;
}

std::string some_names(const std::vector<std::string>& names, std::string_view what) {
  constexpr std::size_t kShown = 3;
  std::string text = fmt::format("{} {}{}", format_count(static_cast<std::int64_t>(names.size())),
                                 what, names.size() == 1 ? "" : "s");
  if (names.empty()) return text;
  text += " (";
  for (std::size_t i = 0; i < names.size() && i < kShown; ++i) {
    if (i > 0) text += ", ";
    text += quote_text(names[i]);
  }
  return text + (names.size() > kShown ? ", ...)" : ")");
}

}  // namespace ds::check
