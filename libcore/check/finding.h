// Findings, and what collects them.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/check/rules.h"

namespace ds::check {

// One thing that is wrong. Of line, tensor and key at most the ones that apply are set.
struct Finding {
  const Rule* rule = nullptr;
  std::string file;       // as a path the user can open
  std::int64_t line = 0;  // from 1; 0: does not apply
  std::string tensor;
  std::string key;
  std::string message;  // one sentence: file, tensor, line or key; what was found; what is needed
  std::string found;
  std::string expected;
  std::string fix;  // empty when added: the rule's
  int section = 0;  // set by Findings
};

// Rule, place and tensor or key as one short text that stays the same from run to run and from
// machine to machine; `root` is the path that was checked. For baselines.
std::string fingerprint(const Finding& finding, const std::string& root);

// Of one rule at most this many findings are kept; the rest is counted.
inline constexpr std::int64_t kKeptPerRule = 1000;

// Collects findings. `wanted` leaves out rules that were not asked for (empty: all are wanted).
class Findings {
 public:
  using Filter = std::function<bool(const Rule&)>;
  explicit Findings(Filter wanted = {}) : wanted_(std::move(wanted)) {}

  // `rule` is a rule's name. Throws Error(kInternal) for a name that the table has not.
  void add(std::string_view rule, Finding finding);
  // Everything kept, in a stable order: the order of sections, then rule, file, line, tensor, key,
  // message.
  std::vector<Finding> sorted() const;
  // Later findings stand behind all earlier ones.
  void begin_section() { ++section_; }
  int section() const { return section_; }
  // Findings that were counted but not kept, by rule id.
  const std::map<std::string, std::int64_t>& dropped() const { return dropped_; }
  // Whether any finding of this rule was added.
  bool has(std::string_view rule) const;

 private:
  Filter wanted_;
  std::vector<Finding> kept_;
  std::map<const Rule*, std::int64_t> counts_;
  std::map<std::string, std::int64_t> dropped_;
  int section_ = 0;
};

// "3 tensors (a, b, c)", of many the first three.
std::string some_names(const std::vector<std::string>& names, std::string_view what);

}  // namespace ds::check
