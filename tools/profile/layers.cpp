#include "tools/profile/layers.h"

#include <fmt/format.h>

#include <chrono>
#include <optional>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/stop.h"
#include "libcore/base/system.h"
#include "tools/profile/measured_layers.h"
#include "tools/profile/measured_page.h"
#include "tools/profile/trace.h"

namespace ds::profile {

namespace {

using nlohmann::json;

// Flags that say nothing in this mode are refused rather than ignored.
void check_settings(const LayersSettings& settings) {
  const auto refuse = [](const std::string& what, const std::string& hint) {
    throw Error(ExitCode::kUsage, what, hint);
  };
  if (settings.analytical) {
    if (!settings.input.empty()) {
      refuse("--input with --analytical: nothing is run", "give --seq_len N instead");
    }
    if (!settings.trace.empty()) {
      refuse("--trace with --analytical: nothing is run, so nothing takes time",
             "leave one of the two out");
    }
  } else if (settings.mtp) {
    refuse("--mtp: a measured step leaves these layers out", "add --analytical");
  }
  if (settings.mode != "decode") return;
  if (settings.work.activation_checkpointing != "none") {
    refuse("--activation_checkpointing with --mode decode: there is no backward pass",
           "leave it out, or use --mode train");
  }
  if (settings.work.peft_method == "full") {
    refuse("--peft_method full with --mode decode: nothing is trained",
           "leave it out, or use --mode train");
  }
}

// One warm-up step, then the measured ones; with `trace` all of them are recorded, else the last.
void measure(const LayersSettings& settings, Workload& work, Device& device, Measurement& m,
             Recorder& recorder, cli::Run& run) {
  const bool trace = !settings.trace.empty();
  device.set_observer(&recorder);
  ProcessUse start;
  MemoryUse before;
  std::int64_t untraced = 0;
  for (std::int64_t i = 0; i <= settings.steps; ++i) {
    if (stop_requested()) {
      run.progress_clear();
      throw Error(ExitCode::kInterrupted, fmt::format("stopped before step {}", i + 1));
    }
    run.progress(i == 0 ? "warm-up step" : fmt::format("step {} of {}", i, settings.steps),
                 static_cast<double>(i) / static_cast<double>(settings.steps + 1));
    const bool last = i == settings.steps;
    const bool has_room = recorder.spans().size() < kMostSpans;
    if (trace && !has_room && !last) ++untraced;
    if (last) before = work.memory();
    if (i == 1) {
      m.profile.reset();
      start = process_use();
    }
    const auto begin = std::chrono::steady_clock::now();
    if (i > 0) recorder.begin_step(last || (trace && has_room));
    const AllocationCounts allocations = allocation_counts();
    work.step();
    if (i == 0) continue;
    m.allocations += allocation_counts() - allocations;
    recorder.end_step();
    m.seconds.push_back(
        std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count());
  }
  m.use = process_use() - start;
  device.set_observer(nullptr);
  m.memory = work.memory();
  m.timeline = make_timeline(recorder, before, m.memory);
  run.progress_clear();
  if (untraced > 0) {
    run.warn(
        fmt::format("{}: the trace leaves out {} of {} steps, it would be too large for a "
                    "browser",
                    settings.trace, untraced, settings.steps));
  }
}

// What the formulas say of the rows of a decode step.
void add_formulas(std::vector<MeasuredRow>& rows, const CostTable& costs, const ModelConfig& config,
                  const Workload& work, DType dtype) {
  const char* const cache = dtype == DType::kBF16 ? "bf16" : "f32";
  const DecodeStep step{
      .batch = work.tokens(),
      .seq_len = work.longest_row(),
      .cache_bytes = kv_cache_bytes_per_token(config, cache, false) / config.num_hidden_layers};
  for (std::size_t i = 0; i < costs.rows.size(); ++i) {  // measured_rows() begins with them
    const CostRow& cost = costs.rows[i];
    // The width of a weight on disk, scales included; a tied head is the embedding.
    const bool tied = cost.kind == "head" && config.tie_word_embeddings;
    const auto& bytes = work.part_bytes();
    const auto found = bytes.find(tied ? "embedding" : cost.name);
    const std::int64_t parameters = tied ? costs.rows.front().parameters : cost.parameters;
    const double width = found == bytes.end() || parameters == 0
                             ? 0.0
                             : static_cast<double>(found->second) / static_cast<double>(parameters);
    rows[i].formula_flops = static_cast<double>(cost.forward_flops * work.tokens());
    rows[i].formula_bytes = decode_bytes(config, cost, step, width);
  }
}

Product measured_product(const LayersSettings& settings, const std::filesystem::path& folder,
                         const ModelConfig& config, cli::Run& run) {
  const Mode mode = parse_mode(settings.mode);
  // Made first, so that a path that cannot be written is found before the work.
  std::optional<AtomicFile> trace;
  if (!settings.trace.empty()) trace.emplace(settings.trace);
  run.input(folder / "config.json");
  Device device = Device::cpu(run.threads());
  const DType dtype = settings.work.dtype == "bf16" ? DType::kBF16 : DType::kF32;
  Measurement m;
  m.threads = run.threads();
  m.decode = mode == Mode::kDecode;
  run.progress(m.decode ? "the context" : "measuring the machine", 0.0);
  Workload work(settings.work, folder, config, settings.input, mode, device);
  m.peaks = measure_peaks(device, dtype);
  reset_peak_resident();
  const CostTable costs =
      costs_of(settings, config, work.method(), work.targets(), work.longest_row());
  Recorder recorder(m.profile, device, work.activations(), work.workspace());
  measure(settings, work, device, m, recorder, run);
  m.tokens = work.tokens();
  m.peak_rss = peak_resident_bytes();
  // Again, so that a moment in which other work had the machine does not lower the peak.
  m.peaks.raise(measure_peaks(device, dtype));
  if (trace) {
    write_trace(*trace, recorder, m.peaks,
                fmt::format("deepseek-profile layers --mode {}, {}", settings.mode,
                            folder.filename().string()));
  }

  std::vector<MeasuredRow> rows =
      measured_rows(m, costs, mode == Mode::kTrain ? work.trainable() : 0);
  if (m.decode) add_formulas(rows, costs, config, work, dtype);
  for (const MeasuredRow& row : rows) {
    if (!row.rating.above_peak) continue;
    run.warn(
        fmt::format("{}: achieved more than the measured matrix peak, which cannot be; its rate "
                    "is left out (other work disturbed the measurement, or the count is wrong)",
                    row.name));
  }
  const std::vector<std::string> facts = totals_facts(settings, config, costs, work.longest_row());
  Product product = measured_page(m, rows, peaks_text(m.peaks, device));
  product.title = fmt::format("{}: layers, {}", folder.filename().string(), settings.mode);
  product.facts.insert(product.facts.begin(), facts.begin(), facts.end());
  for (const std::string& fact : facts) product.text += fact + "\n";
  product.text += peaks_text(m.peaks, device) + measured_text(m, rows);
  product.document = measured_json(m, rows);
  product.document["peaks"] = peaks_json(m.peaks, device);
  product.document["totals"] = totals_json(settings, config, costs);
  product.document["mode"] = settings.mode;
  product.document["dtype"] = settings.work.dtype;
  return product;
}

}  // namespace

CostTable costs_of(const LayersSettings& settings, const ModelConfig& config, Method method,
                   std::vector<LoraTarget> targets, std::int64_t seq_len) {
  CostRequest request{.convention = *parse_convention(settings.convention),
                      .seq_len = seq_len,
                      .mtp = settings.mtp,
                      .train = settings.mode == "train",
                      .decode = settings.mode == "decode"};
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

std::vector<std::string> totals_facts(const LayersSettings& settings, const ModelConfig& config,
                                      const CostTable& costs, std::int64_t seq_len) {
  const CostRow& t = costs.total;
  std::string model = fmt::format("{}: {} parameters, {} activated a token", config.architecture,
                                  format_count(t.parameters), format_count(t.activated));
  if (t.adapter_parameters > 0) {
    model += fmt::format(", {} in adapters", format_count(t.adapter_parameters));
  }
  const auto forward = static_cast<double>(t.forward_flops) / 1e9;
  const std::string cache =
      fmt::format("latent cache {} bytes a token ({})",
                  format_count(kv_cache_bytes_per_token(config, settings.kv_dtype, settings.mtp)),
                  settings.kv_dtype);
  if (settings.mode == "decode") {
    return {model, fmt::format("by formula ({}, context of {} tokens): {:.3f} GFLOP a token; {}",
                               settings.convention, seq_len, forward, cache)};
  }
  return {
      model,
      fmt::format("by formula ({}, {} tokens): {:.3f} GFLOP a token forward, {:.3f} {}; {}",
                  settings.convention, seq_len, forward, static_cast<double>(t.train_flops()) / 1e9,
                  settings.mode == "train" ? "with the backward pass" : "in all", cache)};
}

void run_layers(const LayersSettings& settings, cli::Run& run) {
  check_settings(settings);
  const std::filesystem::path folder = find_model_folder(settings.work.model);
  const ModelConfig config = load_model_config(folder);
  Product product = settings.analytical ? analytical_product(settings, config)
                                        : measured_product(settings, folder, config, run);
  if (settings.analytical) {
    product.title =
        fmt::format("{}: layers by formula, {}", folder.filename().string(), settings.mode);
  }
  print_product(product, run);
}

}  // namespace ds::profile
