// deepseek-check --compatibility: rows beside the findings of each path.
#pragma once

#include <optional>

#include "libcore/check/compatibility.h"
#include "libcore/check/finding.h"
#include "libcore/check/machine.h"
#include "tools/check/options.h"
#include "tools/check/result.h"

namespace ds::check {

// What the flags ask.
struct CompatibilityQuestion {
  Generation from = Generation::kV3;
  bool migration_asked = false;  // --from or --to was given: open steps are findings
  std::optional<Stack> stack;    // --target; absent: all, as rows
  std::optional<Hardware> hardware;
  Workload workload;
};

class Compatibility {
 public:
  // `findings` must outlive it.
  Compatibility(const CompatibilityQuestion& question, Findings& findings);
  // Rows of one path, and their findings in its section. `base`: the model an adapter belongs to.
  void add(const Detected& target, const ModelConfig* base, CheckedTarget& checked);
  // The section of this machine, and the rest of the document.
  void finish(CheckResult& result);

 private:
  void migration(const Detected& target, const InputFacts& facts, CheckedTarget& checked);
  void stacks(const InputFacts& facts, CheckedTarget& checked);
  void gpus(const InputFacts& facts, CheckedTarget& checked);

  CompatibilityQuestion question_;
  Findings& findings_;
  MachineInfo machine_;
  std::optional<InputFacts> model_;  // the last one: an adapter behind it belongs to it
  nlohmann::json fits_ = nlohmann::json::array();
};

// Empty without --compatibility. Throws Error(kUsage) for flags that need it, for names that are
// not known and for migrations that are none.
std::optional<Compatibility> make_compatibility(const CheckSettings& settings, Findings& findings);

}  // namespace ds::check
