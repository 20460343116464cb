#include "tools/profile/layers.h"

#include <fmt/format.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/stop.h"
#include "libcore/base/system.h"
#include "tools/profile/measured_layers.h"

namespace ds::profile {

namespace {

using nlohmann::json;

CostTable costs_of(const LayersSettings& settings, const ModelConfig& config, Method method,
                   std::vector<LoraTarget> targets, std::int64_t seq_len) {
  CostRequest request{.convention = *parse_convention(settings.convention),
                      .seq_len = seq_len,
                      .mtp = settings.mtp,
                      .train = settings.mode == "train"};
  if (method != Method::kFull) request.lora = std::move(targets);
  return count_costs(config, request);
}

json totals_json(const LayersSettings& settings, const ModelConfig& config,
                 const CostTable& costs) {
  return {{"parameters", costs.total.parameters},
          {"activated_parameters", costs.total.activated},
          {"adapter_parameters", costs.total.adapter_parameters},
          {"forward_flops_per_token", costs.total.forward_flops},
          {"train_flops_per_token", costs.total.train_flops()},
          {"kv_cache_bytes_per_token",
           kv_cache_bytes_per_token(config, settings.kv_dtype, settings.mtp)}};
}

std::string totals_text(const LayersSettings& settings, const ModelConfig& config,
                        const CostTable& costs, std::int64_t seq_len) {
  const CostRow& t = costs.total;
  std::string text = fmt::format("{}: {} parameters, {} activated a token", config.architecture,
                                 format_count(t.parameters), format_count(t.activated));
  if (t.adapter_parameters > 0) {
    text += fmt::format(", {} in adapters", format_count(t.adapter_parameters));
  }
  text += fmt::format(
      "\nby formula ({}, {} tokens): {:.3f} GFLOP a token forward, {:.3f} {}; latent "
      "cache {} bytes a token ({})\n",
      settings.convention, seq_len, static_cast<double>(t.forward_flops) / 1e9,
      static_cast<double>(t.train_flops()) / 1e9,
      settings.mode == "train" ? "with the backward pass" : "in all",
      format_count(kv_cache_bytes_per_token(config, settings.kv_dtype, settings.mtp)),
      settings.kv_dtype);
  return text;
}

void print_analytical(const LayersSettings& settings, const ModelConfig& config,
                      const CostTable& costs, cli::Run& run) {
  const std::int64_t seq_len = settings.work.seq_len;
  const std::int64_t width = settings.work.dtype == "bf16" ? 2 : 4;
  std::string text = totals_text(settings, config, costs, seq_len);
  text += fmt::format("\n{:<22} {:<10} {:>18} {:>16} {:>12} {:>12} {:>12} {:>7}\n", "part", "kind",
                      "parameters", "activated", "fwd MF", "dX MF", "dW MF", "share");
  json layers = json::array();
  for (const CostRow& row : costs.rows) {
    const double share =
        static_cast<double>(row.train_flops()) / static_cast<double>(costs.total.train_flops());
    text += fmt::format("{:<22} {:<10} {:>18} {:>16} {:>12.3f} {:>12.3f} {:>12.3f} {:>6.2f}%\n",
                        row.name, row.kind, format_count(row.parameters),
                        format_count(row.activated), static_cast<double>(row.forward_flops) / 1e6,
                        static_cast<double>(row.input_gradient_flops) / 1e6,
                        static_cast<double>(row.weight_gradient_flops) / 1e6, 100.0 * share);
    layers.push_back({{"name", row.name},
                      {"kind", row.kind},
                      {"parameters", row.parameters},
                      {"activated_parameters", row.activated},
                      {"adapter_parameters", row.adapter_parameters},
                      {"forward_flops", row.forward_flops},
                      {"input_gradient_flops", row.input_gradient_flops},
                      {"weight_gradient_flops", row.weight_gradient_flops},
                      {"bytes", row.activated * width},
                      {"seconds", nullptr},
                      {"share", share},
                      {"bound", nullptr}});
  }
  run.product(text, {{"per", "token"},
                     {"convention", settings.convention},
                     {"seq_len", seq_len},
                     {"totals", totals_json(settings, config, costs)},
                     {"layers", layers}});
}

// One warm-up step, then the measured ones.
void measure(const LayersSettings& settings, Workload& work, Device& device, Measurement& m,
             cli::Run& run) {
  device.set_observer(&m.profile);
  ProcessUse start;
  for (std::int64_t i = 0; i <= settings.steps; ++i) {
    if (stop_requested()) {
      run.progress_clear();
      throw Error(ExitCode::kInterrupted, fmt::format("stopped before step {}", i + 1));
    }
    run.progress(i == 0 ? "warm-up step" : fmt::format("step {} of {}", i, settings.steps),
                 static_cast<double>(i) / static_cast<double>(settings.steps + 1));
    if (i == 1) {
      m.profile.reset();
      start = process_use();
    }
    const auto begin = std::chrono::steady_clock::now();
    work.step();
    if (i > 0) {
      m.seconds.push_back(
          std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
    }
  }
  m.use = process_use() - start;
  device.set_observer(nullptr);
  run.progress_clear();
}

}  // namespace

void run_layers(const LayersSettings& settings, cli::Run& run) {
  const std::filesystem::path folder = find_model_folder(settings.work.model);
  const ModelConfig config = load_model_config(folder);
  const bool train = settings.mode == "train";
  if (settings.analytical) {
    if (!settings.input.empty()) {
      throw Error(ExitCode::kUsage, "--input with --analytical: nothing is run",
                  "give --seq_len N instead");
    }
    const Method method = resolve_method(settings.work, train, true);
    print_analytical(settings, config,
                     costs_of(settings, config, method, lora_targets(settings.work, method, config),
                              settings.work.seq_len),
                     run);
    return;
  }
  if (settings.mtp) {
    throw Error(ExitCode::kUsage, "--mtp: a training step leaves these layers out",
                "add --analytical");
  }
  run.input(folder / "config.json");
  Device device = Device::cpu(run.threads());
  const DType dtype = settings.work.dtype == "bf16" ? DType::kBF16 : DType::kF32;
  Measurement m;
  m.threads = run.threads();
  run.progress("measuring the machine", 0.0);
  Workload work(settings.work, folder, config, settings.input, train, device);
  m.peaks = measure_peaks(device, dtype);
  reset_peak_resident();
  const CostTable costs =
      costs_of(settings, config, work.method(), work.targets(), work.longest_row());
  measure(settings, work, device, m, run);
  m.tokens = work.tokens();
  m.memory = work.memory();
  m.peak_rss = peak_resident_bytes();
  // Again, so that a moment in which other work had the machine does not lower the peak.
  m.peaks.raise(measure_peaks(device, dtype));

  const std::vector<MeasuredRow> rows = measured_rows(m, costs, train ? work.trainable() : 0);
  for (const MeasuredRow& row : rows) {
    if (!row.rating.above_peak) continue;
    run.warn(
        fmt::format("{}: achieved more than the measured matrix peak, which cannot be; its rate "
                    "is left out (other work disturbed the measurement, or the count is wrong)",
                    row.name));
  }
  json document = measured_json(m, rows);
  document["totals"] = totals_json(settings, config, costs);
  document["mode"] = settings.mode;
  document["dtype"] = settings.work.dtype;
  run.product(totals_text(settings, config, costs, work.longest_row()) + measured_text(m, rows),
              document);
}

}  // namespace ds::profile
