#include "libcore/check/alike.h"

#include <fmt/format.h>

#include "libcore/base/format.h"

namespace ds::check {

void Alike::flush(Findings& findings) {
  for (auto& [key, group] : groups_) {
    const auto& [rule, kind, found, expected] = key;
    if (group.count > kShown) {
      Finding finding = std::move(group.first.front());
      finding.message += fmt::format("; and {} more alike{}", format_count(group.count - 1),
                                     kind.empty() ? "" : " (" + kind + ")");
      findings.add(rule, std::move(finding));
      continue;
    }
    for (Finding& finding : group.first) findings.add(rule, std::move(finding));
  }
  groups_.clear();
}

}  // namespace ds::check
