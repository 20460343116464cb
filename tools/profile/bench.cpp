#include "tools/profile/bench.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/stop.h"
#include "libcore/base/system.h"
#include "libcore/nn/op_bench.h"
#include "tools/profile/op_profile.h"
#include "tools/profile/product.h"
#include "tools/profile/roofline.h"
#include "tools/profile/workload.h"

namespace ds::profile {

namespace {

using nlohmann::json;

// The model of bench/make_mini.py.
const char* const kMiniConfig = R"({
  "architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3", "hidden_size": 512,
  "num_hidden_layers": 6, "first_k_dense_replace": 1, "intermediate_size": 1536,
  "num_attention_heads": 8, "num_key_value_heads": 8, "q_lora_rank": 256, "kv_lora_rank": 128,
  "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64, "n_routed_experts": 32,
  "n_group": 4, "topk_group": 2, "num_experts_per_tok": 4, "n_shared_experts": 1,
  "moe_intermediate_size": 256, "moe_layer_freq": 1, "norm_topk_prob": true,
  "routed_scaling_factor": 2.5, "scoring_func": "sigmoid", "topk_method": "noaux_tc",
  "vocab_size": 16384, "max_position_embeddings": 4096, "rms_norm_eps": 1e-6,
  "rope_theta": 10000.0, "hidden_act": "silu", "attention_bias": false,
  "tie_word_embeddings": false, "num_nextn_predict_layers": 0})";

struct Result {
  std::string name;
  std::string unit;
  double median = 0.0;  // in unit
  double spread = 0.0;  // distance of the quartiles over the median
  std::optional<double> share_of_peak;
  bool above_peak = false;
  bool cold = false;
  std::optional<double> ratio;  // to --compare
};

double quantile(const std::vector<double>& sorted, double q) {
  const double place = q * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<std::size_t>(place);
  const std::size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (place - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

// `amount` a repetition, such as operations, becomes a rate in units of `unit_size`.
Result make_result(std::string name, std::string unit, double amount, double unit_size,
                   const std::vector<double>& seconds) {
  std::vector<double> rates;
  for (const double s : seconds) rates.push_back(amount / s / unit_size);
  std::sort(rates.begin(), rates.end());
  Result result{.name = std::move(name), .unit = std::move(unit)};
  result.median = quantile(rates, 0.5);
  result.spread = (quantile(rates, 0.75) - quantile(rates, 0.25)) / result.median;
  return result;
}

// A share above 1 is an error of the measurement, not a result.
void set_share(Result& result, double share) {
  result.above_peak = share > 1.0;
  if (!result.above_peak) result.share_of_peak = share;
}

Result op_result(const OpTiming& timing, const MachinePeaks& peaks) {
  Result result = timing.matrix
                      ? make_result(timing.name, "GFLOP/s", timing.cost.flops, 1e9, timing.seconds)
                      : make_result(timing.name, "GB/s", timing.cost.bytes, 1e9, timing.seconds);
  result.cold = timing.cold;
  set_share(result,
            result.median * 1e9 / (timing.matrix ? peaks.matrix_flops : peaks.memory_bytes));
  return result;
}

// Whether the folder holds weights at all; a config alone is enough for everything but the step.
bool has_weights(const std::filesystem::path& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (name == "model.safetensors.index.json" || entry.path().extension() == ".safetensors") {
      return true;
    }
  }
  return false;
}

struct StepTiming {
  std::vector<double> seconds;
  double flops = 0.0;  // of one step
  std::int64_t tokens = 0;
};

StepTiming time_step(const BenchSettings& settings, const std::filesystem::path& folder,
                     const ModelConfig& config, Device& device, cli::Run& run) {
  Workload work(settings.work, folder, config, "", Mode::kTrain, device);
  StepTiming timing{.tokens = work.tokens()};
  OpProfile profile;  // counts the warm-up step's operations; the measured steps run unobserved
  device.set_observer(&profile);
  work.step();
  device.set_observer(nullptr);
  timing.flops = profile.total().flops;
  for (std::int64_t i = 0; i < settings.repeats; ++i) {
    if (stop_requested()) throw Error(ExitCode::kInterrupted, "stopped during the training step");
    run.progress("training step", static_cast<double>(i) / static_cast<double>(settings.repeats));
    const auto begin = std::chrono::steady_clock::now();
    work.step();
    timing.seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  return timing;
}

Result step_result(const StepTiming& timing, const MachinePeaks& peaks) {
  Result result = make_result("training step", "tokens/s", static_cast<double>(timing.tokens), 1.0,
                              timing.seconds);
  set_share(result,
            result.median / static_cast<double>(timing.tokens) * timing.flops / peaks.matrix_flops);
  return result;
}

// The medians of an earlier run, by name and unit. Throws Error(kBadInput).
std::map<std::string, double> read_earlier(const std::string& path) {
  const json document = parse_json_file(path);
  const auto bad = [&](const std::string& what) {
    return Error(ExitCode::kBadInput, path + ": " + what,
                 "give the standard output of deepseek-profile bench --format json");
  };
  if (!document.is_object() || !document.contains("results") || !document["results"].is_array()) {
    throw bad("no array 'results'");
  }
  std::map<std::string, double> medians;
  std::size_t index = 0;
  for (const json& result : document["results"]) {
    const JsonObject object(result, fmt::format("{}: results[{}]", path, index++));
    if (!object.has("median")) continue;  // was above the peak
    const double median = object.number("median");
    if (!(median > 0.0)) throw bad(fmt::format("results[{}].median is not positive", index - 1));
    medians[object.string("name") + "\n" + object.string("unit")] = median;
  }
  return medians;
}

std::string results_text(const std::vector<Result>& results, bool compared) {
  std::string text = fmt::format("{:<56} {:>9} {:<9} {:>7} {:>10} {:<5}{}\n", "case", "median",
                                 "unit", "spread", "of peak", "cache", compared ? "    ratio" : "");
  for (const Result& r : results) {
    const std::string share =
        r.above_peak ? "above peak"
                     : (r.share_of_peak ? fmt::format("{:.0f} %", 100.0 * *r.share_of_peak) : "-");
    const std::string median = r.above_peak ? "-" : fmt::format("{:.1f}", r.median);
    text += fmt::format("{:<56} {:>9} {:<9} {:>6.1f}% {:>10} {:<5}", r.name, median, r.unit,
                        100.0 * r.spread, share, r.cold ? "cold" : "warm");
    if (compared) text += r.ratio ? fmt::format(" {:>8.3f}", *r.ratio) : "        -";
    text += "\n";
  }
  return text;
}

json results_json(const std::vector<Result>& results, bool compared) {
  json array = json::array();
  for (const Result& r : results) {
    json entry{{"name", r.name},
               {"unit", r.unit},
               {"median", r.above_peak ? json(nullptr) : json(r.median)},
               {"spread", r.spread},
               {"share_of_peak", r.share_of_peak ? json(*r.share_of_peak) : json(nullptr)},
               {"above_peak", r.above_peak},
               {"cold", r.cold}};
    if (compared) entry["ratio"] = r.ratio ? json(*r.ratio) : json(nullptr);
    array.push_back(std::move(entry));
  }
  return array;
}

Product bench_product(const BenchSettings& settings, const std::vector<Result>& results,
                      const MachinePeaks& peaks, const std::vector<std::string>& left_out,
                      const Device& device) {
  const bool compared = !settings.compare.empty();
  const std::string model = settings.work.model.empty() ? "mini" : settings.work.model;
  const std::string peak = peaks_text(peaks, device);
  Product product{.title = "bench: " + model,
                  .facts = {peak.substr(0, peak.find('\n')), "dtype " + settings.work.dtype},
                  .text = peak + "\n" + results_text(results, compared),
                  .rows = "results"};
  product.document = {{"suite", settings.suite},
                      {"model", model},
                      {"dtype", settings.work.dtype},
                      {"threads", device.threads()},
                      {"results", results_json(results, compared)},
                      {"left_out", left_out},
                      {"peaks", peaks_json(peaks, device)}};
  product.columns = {{"name", "case"},
                     {"median", "median", 1.0, 1},
                     {"unit", "unit"},
                     {"spread", "spread %", 0.01, 1},
                     {"share_of_peak", "of peak %", 0.01, 1},
                     {"above_peak", "above peak"},
                     {"cold", "cold"}};
  if (compared) product.columns.push_back({"ratio", "ratio", 1.0, 3});
  Bars bars{.series = {"reached", "left to the peak"}};
  for (const Result& result : results) {
    if (!result.share_of_peak) continue;
    bars.bars.push_back({.label = result.name,
                         .values = {*result.share_of_peak, 1.0 - *result.share_of_peak},
                         .note = fmt::format("{:.0f} %", 100.0 * *result.share_of_peak)});
  }
  product.more.push_back({.heading = "Share of the measured peak", .bars = std::move(bars)});
  return product;
}

}  // namespace

void run_bench(const BenchSettings& settings, cli::Run& run) {
  const bool own_model = !settings.work.model.empty();
  const std::filesystem::path folder =
      own_model ? find_model_folder(settings.work.model) : std::filesystem::path();
  const ModelConfig config =
      own_model ? load_model_config(folder)
                : parse_model_config(parse_json_text(kMiniConfig, "built-in"), "built-in");
  const bool compared = !settings.compare.empty();
  std::map<std::string, double> earlier;
  if (compared) earlier = read_earlier(settings.compare);
  if (own_model) run.input(folder / "config.json");

  Device device = Device::cpu(run.threads());
  const DType dtype = settings.work.dtype == "bf16" ? DType::kBF16 : DType::kF32;
  run.progress("measuring the machine", 0.0);
  MachinePeaks peaks = measure_peaks(device, dtype);
  const OpBenchRequest request{.tokens = settings.work.seq_len * settings.work.batch,
                               .seq_len = settings.work.seq_len,
                               .dtype = dtype,
                               .repeats = static_cast<int>(settings.repeats),
                               .memory = static_cast<std::int64_t>(memory_info().available / 2)};
  int cases = 0;
  const OpBenchResult ops =
      bench_ops(device, config, request, [&](const std::string& name, double share) {
        if (stop_requested()) throw Error(ExitCode::kInterrupted, "stopped after " + name);
        run.progress(name, share);
        // Again and again, so that a moment in which other work has the machine does not lower the
        // peak that the cases around it are judged by.
        if (++cases % 6 == 0) peaks.raise(measure_peaks(device, dtype));
      });
  StepTiming step;
  if (own_model && has_weights(folder)) {
    step = time_step(settings, folder, config, device, run);
  } else if (own_model) {
    run.info(folder.string() + ": no weights, the training step is left out");
  }
  peaks.raise(measure_peaks(device, dtype));
  if (dtype != DType::kBF16) peaks.bf16_flops = measure_bf16_peak(device);
  run.progress_clear();
  for (const std::string& name : ops.left_out) {
    run.warn(name + ": left out, it needs more than half of the memory available");
  }

  std::vector<Result> results;
  for (const OpTiming& timing : ops.timings) results.push_back(op_result(timing, peaks));
  if (!step.seconds.empty()) results.push_back(step_result(step, peaks));
  std::size_t unmatched = 0;
  for (Result& result : results) {
    if (result.above_peak) {
      run.warn(result.name + ": achieved more than the measured peak, which cannot be; left out");
    }
    const auto found = earlier.find(result.name + "\n" + result.unit);
    if (found != earlier.end() && !result.above_peak) result.ratio = result.median / found->second;
    if (found == earlier.end()) ++unmatched;
  }
  if (compared && unmatched > 0) {
    run.warn(fmt::format("{}: {} of {} cases are not in it (another model, shape or dtype)",
                         settings.compare, unmatched, results.size()));
  }
  print_product(bench_product(settings, results, peaks, ops.left_out, device), run);
}

}  // namespace ds::profile
