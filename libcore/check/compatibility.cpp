#include "libcore/check/compatibility.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "libcore/base/format.h"

namespace ds::check {
namespace {

constexpr std::array<std::string_view, kStacks> kStackNames{
    "transformers", "peft", "vllm", "sglang", "llama.cpp", "deepseek-inference"};
constexpr std::array<std::string_view, 3> kGenerations{"v3", "r1", "v3.1"};

// Small letters and figures alone: "llama_cpp" and "llama.cpp" are the same.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (std::isalnum(byte) != 0) out += static_cast<char>(std::tolower(byte));
  }
  return out;
}

}  // namespace

std::string_view verdict_name(Verdict verdict) {
  switch (verdict) {
    case Verdict::kOk:
      return "ok";
    case Verdict::kNeeds:
      return "needs";
    default:
      return "refuses";
  }
}

std::string_view stack_name(Stack stack) { return kStackNames[static_cast<std::size_t>(stack)]; }

std::optional<Stack> parse_stack(std::string_view name) {
  for (std::size_t i = 0; i < kStackNames.size(); ++i) {
    if (plain(kStackNames[i]) == plain(name)) return static_cast<Stack>(i);
  }
  return std::nullopt;
}

std::string_view generation_name(Generation generation) {
  return kGenerations[static_cast<std::size_t>(generation)];
}

std::optional<Generation> parse_generation(std::string_view name) {
  for (std::size_t i = 0; i < kGenerations.size(); ++i) {
    if (plain(kGenerations[i]) == plain(name)) return static_cast<Generation>(i);
  }
  return std::nullopt;
}

void add_findings(const CompatibilityRows& rows, bool asked, std::string_view summary_rule,
                  Findings& findings) {
  std::vector<std::string> subjects;
  for (const CompatibilityRow& row : rows) {
    if (row.verdict == Verdict::kOk || row.rule.empty()) continue;
    if (asked) {
      findings.add(row.rule, {.file = row.file,
                              .line = row.line,
                              .tensor = row.tensor,
                              .key = row.key,
                              .message = fmt::format("{}: {}: {}: {}", row.file, row.subject,
                                                     row.requirement, row.detail),
                              .found = row.requirement,
                              .expected = row.subject,
                              .fix = row.action});
    } else if (std::find(subjects.begin(), subjects.end(), row.subject) == subjects.end()) {
      subjects.push_back(row.subject);
    }
  }
  for (const std::string& subject : subjects) {
    std::string list;
    std::string file;
    for (const CompatibilityRow& row : rows) {
      if (row.subject != subject || row.verdict == Verdict::kOk || row.rule.empty()) continue;
      list += (list.empty() ? "" : ", ") + row.requirement;
      file = row.file;
    }
    findings.add(summary_rule,
                 {.file = file,
                  .key = subject,
                  .message = fmt::format("{}: {}: not as it is: {}", file, subject, list),
                  .found = list,
                  .expected = subject});
  }
}

}  // namespace ds::check
