#include "tools/check/fixes.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/error.h"

namespace ds::check {
namespace {

bool written_before(const FixResult& result, const std::string& name) {
  return std::any_of(result.written.begin(), result.written.end(),
                     [&](const FixResult::Written& one) { return one.file == name; });
}

// Writes the files of a plan, in place or where --fix_output says.
void apply(FixPlan& plan, const std::string& output, Detected& target, FixResult& result) {
  if (output.empty()) {
    for (FileRepair& file : plan.files) {
      if (written_before(result, file.path.string())) file.fresh = true;
    }
    fix_in_place(plan);
    for (const FileRepair& file : plan.files) {
      const std::string name = file.path.string();
      if (written_before(result, name)) continue;
      result.written.push_back({name, file.fresh ? "" : name + ".orig"});
    }
    return;
  }
  if (!result.written.empty()) {
    for (FileRepair& file : plan.files) file.fresh = true;
    return fix_in_place(plan);
  }
  fix_into(plan, target.path, output);
  target.path = output;
  result.written.push_back({output, ""});
}

}  // namespace

bool apply_fixes(const CheckSettings& settings, std::vector<Detected>& targets,
                 const std::vector<Finding>& found, FixResult& result) {
  std::vector<FixPlan> plans;
  std::size_t with_files = 0;
  const bool into_output = !settings.fix_output.empty();
  const bool again = !result.written.empty();
  for (std::size_t i = 0; i < targets.size(); ++i) {
    if (into_output && again && targets[i].path != settings.fix_output) {
      plans.emplace_back();  // stays as it is
      continue;
    }
    std::vector<Finding> own;
    for (const Finding& finding : found) {
      if (finding.section == static_cast<int>(i) + 1) own.push_back(finding);
    }
    plans.push_back(plan_fixes(targets[i].kind, targets[i].path, own));
    with_files += plans.back().files.empty() ? 0 : 1;
  }
  if (into_output && with_files > 1) {
    throw Error(ExitCode::kUsage,
                fmt::format("--fix_output: {} of the paths have something to repair, and there is "
                            "one place for it",
                            with_files),
                "give them one by one, or use --fix");
  }
  result.left.clear();
  for (std::size_t i = 0; i < targets.size(); ++i) {
    FixPlan& plan = plans[i];
    if (!plan.files.empty()) apply(plan, settings.fix_output, targets[i], result);
    result.repairs.insert(result.repairs.end(), plan.repairs.begin(), plan.repairs.end());
    result.left.insert(result.left.end(), plan.left.begin(), plan.left.end());
    result.hidden += plan.more_repairs + plan.more_left;
  }
  return with_files > 0;
}

}  // namespace ds::check
