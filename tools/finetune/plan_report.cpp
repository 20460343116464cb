#include "tools/finetune/plan_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"

namespace ds::finetune {

void report_data(cli::Run& run, const Dataset& dataset, const std::string& split) {
  nlohmann::json event = describe(dataset);
  event["split"] = split;
  run.event("deepseek/data/1", std::move(event));
  for (const auto& [file, format] : dataset.format_by_file) {
    run.info(fmt::format("{}: {} format", file, format));
  }
  std::int64_t dropped = 0;
  for (const auto& [kind, count] : dataset.dropped_by_kind) dropped += count;
  run.info(fmt::format(
      "{} data: {} rows read, {} kept, {} dropped, {} truncated; {} tokens, {} of them targets",
      split, format_count(dataset.rows_read),
      format_count(static_cast<std::int64_t>(dataset.examples.size())), format_count(dropped),
      format_count(dataset.truncated), format_count(dataset.tokens),
      format_count(dataset.target_tokens)));
  constexpr std::size_t kShown = 5;
  std::size_t shown = 0;
  for (const RowProblem& problem : dataset.problems) {
    if (shown++ == kShown) {
      run.warn("... more row problems are counted in the report");
      break;
    }
    const std::string column = problem.column > 0 ? fmt::format(":{}", problem.column) : "";
    run.warn(fmt::format("{}:{}{}: {} ({})", problem.file.string(), problem.line, column,
                         problem.reason, problem.dropped ? "dropped" : "repaired"));
  }
  if (20 * dataset.truncated > static_cast<std::int64_t>(dataset.examples.size())) {
    run.warn(fmt::format("{} of {} rows are longer than --cutoff_len and were cut",
                         dataset.truncated, dataset.examples.size()));
  }
}

std::string kinds_text(const std::map<std::string, std::int64_t>& by_kind) {
  std::string text;
  for (const auto& [kind, count] : by_kind) {
    if (count == 0) continue;
    text += fmt::format("{}{} {}", text.empty() ? "" : "; ", kind, format_count(count));
  }
  return text;
}

std::string plan_text(const Plan& plan) {
  const std::int64_t parameters = count_parameters(plan.config).total();
  std::string text;
  text += fmt::format("model      {}, {} layers, {} parameters ({} activated), {} on disk\n",
                      plan.config.architecture, plan.config.num_hidden_layers,
                      format_count(parameters), format_count(activated_parameters(plan.config)),
                      format_bytes(static_cast<std::uint64_t>(plan.memory.base_bytes)));
  text += fmt::format("method     {}\n", plan.method);
  text += fmt::format(
      "trains     {} parameters, {:.4f} %: {}\n", format_count(plan.adapter.trainable),
      100.0 * static_cast<double>(plan.adapter.trainable) / static_cast<double>(parameters),
      kinds_text(plan.adapter.by_kind));
  text += fmt::format("data       {} rows, {} steps an epoch\n", format_count(plan.data.rows()),
                      format_count(plan.data.steps_per_epoch()));
  for (std::size_t i = 0; i < plan.stages.size(); ++i) {
    const Stage& stage = plan.stages[i];
    text += fmt::format("stage {:<4} steps {} to {}, learning rate x {:g}{}{}\n", i + 1,
                        stage.first_step, stage.last_step, stage.lr_factor,
                        stage.targets.empty() ? "" : ", trains " + stage.targets,
                        stage.data.empty() ? "" : ", data " + stage.data);
  }
  text += fmt::format("memory     {} needed, {} available\n",
                      format_bytes(static_cast<std::uint64_t>(plan.memory.total())),
                      format_bytes(static_cast<std::uint64_t>(plan.available)));
  for (const auto& [part, bytes] : plan.memory.parts) {
    text += fmt::format("           {:<12} {}\n", part,
                        format_bytes(static_cast<std::uint64_t>(bytes)));
  }
  if (plan.selection) text += "selective  " + plan.selection->text() + "\n";
  const StepEstimate& step = plan.step;
  text += fmt::format("step       {:.3g} TFLOP at {:.0f} GFLOP/s: {}\n", step.flops / 1e12,
                      step.rate / 1e9, format_duration(step.arithmetic_seconds));
  if (step.disk_bytes > 0) {
    text += fmt::format(
        "           {} from disk{}\n", format_bytes(static_cast<std::uint64_t>(step.disk_bytes)),
        step.disk_rate > 0.0
            ? fmt::format(" at {}/s: {}", format_bytes(static_cast<std::uint64_t>(step.disk_rate)),
                          format_duration(step.disk_seconds))
            : ", whose rate could not be measured");
  }
  text += fmt::format("           about {} a step, bound by {}\n", format_duration(step.seconds()),
                      step.binding());
  if (!plan.activations.empty()) {
    text += "recompute  what              memory       MFLOP a token   bytes per kFLOP\n";
  }
  for (const ActivationGroup& group : plan.activations) {
    const auto bytes = static_cast<double>(group.elements * plan.activation_bytes);
    text +=
        fmt::format("           {:<16}  {:>9}  {:>16.2f}  {:>16.2f}  {}\n", group.name,
                    format_bytes(static_cast<std::uint64_t>(bytes)), group.flops / 1e6,
                    static_cast<double>(group.elements * plan.element_bytes) / group.flops * 1e3,
                    group.dropped_selective ? "made again" : "kept");
  }
  return text;
}

nlohmann::json plan_json(const Plan& plan) {
  nlohmann::json stages = nlohmann::json::array();
  for (const Stage& stage : plan.stages) {
    stages.push_back({{"first_step", stage.first_step},
                      {"last_step", stage.last_step},
                      {"lr_factor", stage.lr_factor},
                      {"targets", stage.targets},
                      {"data", stage.data}});
  }
  nlohmann::json json = {{"architecture", plan.config.architecture},
                         {"parameters", count_parameters(plan.config).total()},
                         {"activated_parameters", activated_parameters(plan.config)},
                         {"trainable_parameters", plan.adapter.trainable},
                         {"trainable_by_kind", plan.adapter.by_kind},
                         {"rows", plan.data.rows()},
                         {"steps_per_epoch", plan.data.steps_per_epoch()},
                         {"steps", plan.stages.back().last_step},
                         {"stages", std::move(stages)},
                         {"memory",
                          {{"needed_bytes", plan.memory.total()},
                           {"available_bytes", plan.available},
                           {"base_bytes", plan.memory.base_bytes},
                           {"recompute", recompute_name(plan.memory.recompute)},
                           {"streamed", plan.memory.streams()},
                           {"window_bytes", plan.memory.window},
                           {"parts", plan.memory.parts}}},
                         {"step",
                          {{"flops", plan.step.flops},
                           {"arithmetic_seconds", plan.step.arithmetic_seconds},
                           {"disk_bytes", plan.step.disk_bytes},
                           {"disk_bytes_per_second", plan.step.disk_rate},
                           {"disk_seconds", plan.step.disk_seconds},
                           {"seconds", plan.step.seconds()},
                           {"binding", plan.step.binding()}}}};
  if (plan.selection) json["selective_computation"] = plan.selection->json();
  return json;
}

void apply_stage_targets(const std::string& targets, const AdapterPlan& adapter,
                         const ModelConfig& config, DeepSeekModel& model) {
  if (targets.empty()) {
    for (Parameter* parameter : model.parameters()) parameter->trainable = true;
    return;
  }
  LoraConfig chosen;
  set_targets(chosen, targets, config);
  std::set<std::string> paths;
  for (const LoraTarget& target : match_targets(chosen, config)) paths.insert(target.module.path);
  std::int64_t trained = 0;
  for (Parameter* parameter : model.parameters()) {
    std::string path = parameter->name;
    for (const char* suffix : {".lora_A.weight", ".lora_B.weight", ".lora_embedding_A",
                               ".lora_embedding_B", ".lora_magnitude_vector", ".weight"}) {
      const std::string_view tail(suffix);
      if (path.size() > tail.size() && path.ends_with(tail)) {
        path.resize(path.size() - tail.size());
        break;
      }
    }
    parameter->trainable = paths.count(path) > 0;
    trained += parameter->trainable ? 1 : 0;
  }
  if (trained == 0) {
    throw Error(ExitCode::kUsage,
                fmt::format("--stage_targets {}: the {} none of these modules", quote_text(targets),
                            adapter.full ? "model has" : "adapter covers"),
                "a stage trains a part of what --lora_target names");
  }
}

}  // namespace ds::finetune
