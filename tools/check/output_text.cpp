#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/format.h"
#include "tools/check/result.h"

namespace ds::check {
namespace {

class Painter {
 public:
  explicit Painter(bool color) : color_(color) {}
  std::string operator()(const char* code, std::string_view text) const {
    return color_ ? fmt::format("\x1b[{}m{}\x1b[0m", code, text) : std::string(text);
  }
  std::string severity(Severity severity) const {
    const char* code = severity == Severity::kError     ? "1;31"
                       : severity == Severity::kWarning ? "1;33"
                                                        : "36";
    return (*this)(code, fmt::format("{:<7}", severity_name(severity)));
  }
  std::string verdict(Verdict verdict) const {
    const char* code = verdict == Verdict::kOk ? "32" : verdict == Verdict::kNeeds ? "33" : "31";
    return (*this)(code, fmt::format("{:<7}", verdict_name(verdict)));
  }

 private:
  bool color_;
};

std::string counted(std::int64_t count, const char* what) {
  return fmt::format("{} {}{}", format_count(count), what, count == 1 ? "" : "s");
}

std::string lengths_text(const Lengths& lengths) {
  if (lengths.rows == 0) return "";
  std::string text =
      fmt::format("  {} a row: half up to {}, 90 % up to {}, 99 % up to {}, at most {}\n",
                  lengths.unit, format_count(lengths.p50), format_count(lengths.p90),
                  format_count(lengths.p99), format_count(lengths.max));
  std::int64_t most = 1;
  for (const Lengths::Bucket& bucket : lengths.buckets) most = std::max(most, bucket.rows);
  for (const Lengths::Bucket& bucket : lengths.buckets) {
    constexpr std::int64_t kWidth = 40;
    const std::int64_t bar = (bucket.rows * kWidth + most - 1) / most;
    text += fmt::format("  {:>17}  {}{}{}\n",
                        fmt::format("{} - {}", format_count(bucket.from), format_count(bucket.to)),
                        std::string(static_cast<std::size_t>(bar), '#'), bar > 0 ? " " : "",
                        format_count(bucket.rows));
  }
  return text;
}

// Rows under a heading for each section and subject.
std::string table(const CompatibilityRows& rows, const Painter& paint) {
  std::string text;
  const CompatibilityRow* last = nullptr;
  for (const CompatibilityRow& row : rows) {
    if (last == nullptr || last->section != row.section || last->subject != row.subject) {
      text += fmt::format("{}{}\n", last == nullptr ? "" : "\n",
                          paint("1", fmt::format("{}: {}", row.section, row.subject)));
    }
    last = &row;
    text += fmt::format("  {} {:<20} {} [{}]\n", paint.verdict(row.verdict), row.requirement,
                        row.detail, row.source);
    if (!row.action.empty()) text += fmt::format("          do: {}\n", row.action);
  }
  return text.empty() ? text : text + "\n";
}

std::string place(const std::string& file, std::int64_t line) {
  return line > 0 ? fmt::format("{}: line {}", file, line) : file;
}

std::string fix_text(const FixResult& fix, const Painter& paint) {
  std::string text = paint("1", "repairs") + "\n";
  for (const Repair& repair : fix.repairs) {
    const std::string after = repair.after.empty() ? "removed" : repair.after;
    text += fmt::format("  {} {}\n    {}: {}: {} -> {}\n", repair.rule->id, repair.rule->name,
                        place(repair.file, repair.line), repair.key, repair.before, after);
  }
  for (const auto& [file, backup] : fix.written) {
    text += fmt::format("  wrote {}{}\n", file,
                        backup.empty() ? "" : fmt::format(" (as it was: {})", backup));
  }
  for (const NotRepaired& one : fix.left) {
    text += fmt::format("  not repaired: {} {}\n    {}: {}\n", one.rule->id, one.rule->name,
                        place(one.file, one.line), one.reason);
  }
  if (fix.written.empty()) text += "  nothing was written\n";
  if (fix.hidden > 0) text += fmt::format("  and {} more\n", format_count(fix.hidden));
  return text + "\n";
}

}  // namespace

std::string as_text(const CheckResult& result, bool color) {
  const Painter paint(color);
  std::string text = result.fix ? fix_text(*result.fix, paint) : "";
  std::size_t next = 0;
  for (std::size_t i = 0; i < result.targets.size(); ++i) {
    const CheckedTarget& target = result.targets[i];
    const bool machine = target.kind == TargetKind::kMachine;
    if (!machine) {
      text += paint("1", target.path) + fmt::format(": {}", target_name(target.kind));
      text += target.what.empty() ? "\n" : fmt::format(", {}\n", target.what);
    }
    text += lengths_text(target.lengths);
    const std::size_t first = next;
    while (next < result.findings.size() &&
           result.findings[next].section == static_cast<int>(i) + 1) {
      const Finding& finding = result.findings[next];
      const Rule& rule = *finding.rule;
      if (next == first || result.findings[next - 1].rule->group != rule.group) {
        text += fmt::format("\n{}\n", group_name(rule.group));
      }
      text += fmt::format("  {} {} {}\n    {}\n    fix: {}\n", paint.severity(rule.severity),
                          rule.id, rule.name, finding.message, finding.fix);
      ++next;
    }
    if (next > first) {
      text += "\n";
    } else if (!machine) {
      text += "  nothing found\n\n";
    }
    text += table(target.rows, paint);
  }
  text += fmt::format("{}, {}, {} in {:.3f} s", counted(result.errors, "error"),
                      counted(result.warnings, "warning"), counted(result.notes, "note"),
                      result.seconds);
  if (result.known > 0) text += fmt::format("; {} known by the baseline", result.known);
  if (result.hidden > 0) text += fmt::format("; {} not shown", format_count(result.hidden));
  return text + "\n";
}

}  // namespace ds::check
