#include "tools/convert/merge.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "tools/convert/merge_plan.h"

namespace ds::convert {

void run_merge(const MergeSettings& settings, cli::Run& run) {
  const Source source = open_source(settings.model, run);
  const auto adapter = open_adapter_folder(settings.adapter, list_modules(source.config));
  MergeReport report;
  MergePlan plan = plan_merge(source, *adapter, settings, report, run);
  plan.output.save = [&report] { return report.to_json(); };
  plan.output.recall = [&report](const nlohmann::json& counts) {
    report = MergeReport::from_json(counts);
  };
  run.info(
      fmt::format("{} weights change, {} are replaced, {} have an update that is zero, {} "
                  "other tensors",
                  plan.changed, plan.replaced, plan.zero, plan.other));
  write_output(settings.out, plan.output, run, [&](nlohmann::json& json, const Tally&) {
    json["weights_changed"] = plan.changed;
    json["weights_replaced"] = plan.replaced;
    json["weights_zero_update"] = plan.zero;
    json["tensors_untouched"] = plan.other + plan.zero;
    if (settings.out.dry_run) return;
    json["max_change"] = report.change.largest;
    json["max_change_tensor"] = report.largest_weight;
    json["rounding_lost"] = report.rounding_lost();
    if (report.blocks > 0) {
      json["fp8_blocks"] = report.blocks;
      json["fp8_blocks_kept"] = report.blocks_kept;
    }
  });
  if (settings.out.dry_run || report.weights == 0) return;
  run.info(fmt::format("largest change {:.3g} in {}; rounding took {:.3g} % of the change",
                       report.change.largest, report.largest_weight,
                       100.0 * report.rounding_lost()));
  if (report.blocks > 0) {
    run.info(fmt::format("{} of {} FP8 blocks kept their codes and scales", report.blocks_kept,
                         report.blocks));
  }
}

}  // namespace ds::convert
