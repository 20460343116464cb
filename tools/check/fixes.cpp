#include "tools/check/fixes.h"

#include <fmt/format.h>

#include "libcore/base/error.h"

namespace ds::check {
namespace {

// Writes the files of a plan, in place or where --fix_output says.
void apply(const FixPlan& plan, const std::string& output, Detected& target, FixResult& result) {
  if (output.empty()) {
    fix_in_place(plan);
    for (const FileRepair& file : plan.files) {
      const std::string name = file.path.string();
      result.written.push_back({name, file.fresh ? "" : name + ".orig"});
    }
    return;
  }
  fix_into(plan, target.path, output);
  target.path = output;
  result.written.push_back({output, ""});
}

}  // namespace

FixResult apply_fixes(const CheckSettings& settings, std::vector<Detected>& targets,
                      const std::vector<Finding>& found) {
  std::vector<FixPlan> plans;
  std::size_t with_files = 0;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    std::vector<Finding> own;
    for (const Finding& finding : found) {
      if (finding.section == static_cast<int>(i) + 1) own.push_back(finding);
    }
    plans.push_back(plan_fixes(targets[i].kind, targets[i].path, own));
    with_files += plans.back().files.empty() ? 0 : 1;
  }
  if (!settings.fix_output.empty() && with_files > 1) {
    throw Error(ExitCode::kUsage,
                fmt::format("--fix_output: {} of the paths have something to repair, and there is "
                            "one place for it",
                            with_files),
                "give them one by one, or use --fix");
  }
  FixResult result;
  for (std::size_t i = 0; i < targets.size(); ++i) {
    const FixPlan& plan = plans[i];
    if (!plan.files.empty()) apply(plan, settings.fix_output, targets[i], result);
    result.repairs.insert(result.repairs.end(), plan.repairs.begin(), plan.repairs.end());
    result.left.insert(result.left.end(), plan.left.begin(), plan.left.end());
    result.hidden += plan.more_repairs + plan.more_left;
  }
  return result;
}

}  // namespace ds::check
