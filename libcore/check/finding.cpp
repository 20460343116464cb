#include "libcore/check/finding.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "libcore/base/format.h"
#include "libcore/base/hash.h"

namespace ds::check {

void Findings::add(std::string_view rule, Finding finding) {
  finding.rule = &rule_named(rule);
  if (wanted_ && !wanted_(*finding.rule)) return;
  if (finding.fix.empty()) finding.fix = finding.rule->fix;
  if (++counts_[finding.rule] > kKeptPerRule) {
    ++dropped_[std::string(finding.rule->id)];
    return;
  }
  finding.section = section_;
  kept_.push_back(std::move(finding));
}

bool Findings::has(std::string_view rule) const { return counts_.count(&rule_named(rule)) > 0; }

std::vector<Finding> Findings::sorted() const {
  std::vector<Finding> findings = kept_;
  const auto key = [](const Finding& f) {
    return std::tie(f.section, f.rule->id, f.file, f.line, f.tensor, f.key, f.message);
  };
  std::stable_sort(findings.begin(), findings.end(),
                   [&](const Finding& a, const Finding& b) { return key(a) < key(b); });
  return findings;
}

std::string fingerprint(const Finding& finding, const std::string& root) {
  std::string file = finding.file;
  if (file.starts_with(root)) {
    file.erase(0, root.size());
    while (file.starts_with("/")) file.erase(0, 1);
  }
  const std::string text = fmt::format("{}\n{}\n{}\n{}\n{}\n{}", finding.rule->id, file,
                                       finding.line, finding.tensor, finding.key, finding.found);
  return sha256(text).substr(0, 16);
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
