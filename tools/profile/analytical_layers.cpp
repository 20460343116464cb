#include <fmt/format.h>

#include "libcore/base/format.h"
#include "tools/profile/layers.h"

namespace ds::profile {

namespace {

using nlohmann::json;

struct TextRow {
  const CostRow* cost = nullptr;
  double share = 0.0;
  double bytes = 0.0;
};

double mega(std::int64_t flops) { return static_cast<double>(flops) / 1e6; }

std::string rows_text(const std::vector<TextRow>& rows) {
  std::string text =
      fmt::format("\n{:<22} {:<10} {:>18} {:>16} {:>12} {:>12} {:>12} {:>7}\n", "part", "kind",
                  "parameters", "activated", "fwd MF", "dX MF", "dW MF", "share");
  for (const TextRow& row : rows) {
    const CostRow& cost = *row.cost;
    text += fmt::format("{:<22} {:<10} {:>18} {:>16} {:>12.3f} {:>12.3f} {:>12.3f} {:>6.2f}%\n",
                        cost.name, cost.kind, format_count(cost.parameters),
                        format_count(cost.activated), mega(cost.forward_flops),
                        mega(cost.input_gradient_flops), mega(cost.weight_gradient_flops),
                        100.0 * row.share);
  }
  return text;
}

std::string decode_rows_text(const std::vector<TextRow>& rows) {
  std::string text =
      fmt::format("\n{:<22} {:<10} {:>18} {:>16} {:>12} {:>12} {:>9} {:>7}\n", "part", "kind",
                  "parameters", "activated", "MFLOP", "MB", "FLOP/B", "share");
  for (const TextRow& row : rows) {
    const CostRow& cost = *row.cost;
    text += fmt::format("{:<22} {:<10} {:>18} {:>16} {:>12.3f} {:>12.3f} {:>9.2f} {:>6.2f}%\n",
                        cost.name, cost.kind, format_count(cost.parameters),
                        format_count(cost.activated), mega(cost.forward_flops), row.bytes / 1e6,
                        static_cast<double>(cost.forward_flops) / row.bytes, 100.0 * row.share);
  }
  return text;
}

}  // namespace

Product analytical_product(const LayersSettings& settings, const ModelConfig& config) {
  const bool decode = settings.mode == "decode";
  const std::int64_t seq_len = settings.work.seq_len;
  const std::int64_t width = settings.work.dtype == "bf16" ? 2 : 4;
  const Method method = resolve_method(settings.work, settings.mode == "train", true);
  const CostTable costs =
      costs_of(settings, config, method, lora_targets(settings.work, method, config), seq_len);
  const DecodeStep step{.batch = settings.work.batch,
                        .seq_len = seq_len,
                        .cache_bytes = kv_cache_bytes_per_token(config, settings.kv_dtype, false) /
                                       config.num_hidden_layers};
  const auto batch = static_cast<double>(step.batch);
  std::vector<TextRow> rows;
  json layers = json::array();
  double bytes = 0.0;
  Bars bars{.series = {"forward", "input gradients", "weight gradients"}};
  for (const CostRow& cost : costs.rows) {
    TextRow row{.cost = &cost,
                .share = static_cast<double>(cost.train_flops()) /
                         static_cast<double>(costs.total.train_flops()),
                .bytes = decode
                             ? decode_bytes(config, cost, step, static_cast<double>(width)) / batch
                             : static_cast<double>(cost.activated * width)};
    bytes += row.bytes;
    rows.push_back(row);
    layers.push_back({{"name", cost.name},
                      {"kind", cost.kind},
                      {"parameters", cost.parameters},
                      {"activated_parameters", cost.activated},
                      {"adapter_parameters", cost.adapter_parameters},
                      {"forward_flops", cost.forward_flops},
                      {"input_gradient_flops", cost.input_gradient_flops},
                      {"weight_gradient_flops", cost.weight_gradient_flops},
                      {"bytes", decode ? json(row.bytes) : json(cost.activated * width)},
                      {"seconds", nullptr},
                      {"share", row.share},
                      {"bound", nullptr}});
    bars.bars.push_back({.label = cost.name,
                         .values = {mega(cost.forward_flops), mega(cost.input_gradient_flops),
                                    mega(cost.weight_gradient_flops)},
                         .note = fmt::format("{:.1f} MFLOP", mega(cost.train_flops()))});
  }

  Product product{.facts = totals_facts(settings, config, costs, seq_len), .rows = "layers"};
  product.document = {{"per", "token"},
                      {"mode", settings.mode},
                      {"convention", settings.convention},
                      {"seq_len", seq_len},
                      {"totals", totals_json(settings, config, costs)},
                      {"layers", layers}};
  product.columns = {{"name", "part"},
                     {"kind", "kind"},
                     {"parameters", "parameters"},
                     {"activated_parameters", "activated"},
                     {"adapter_parameters", "in adapters"},
                     {"forward_flops", "forward MFLOP", 1e6, 3}};
  if (decode) {
    const double flops = static_cast<double>(costs.total.forward_flops) * batch;
    product.facts.push_back(fmt::format(
        "a step of {} tokens: {:.3f} GFLOP, {:.3f} GB of weights ({}) and cache, {:.2f} "
        "FLOP/B",
        step.batch, flops / 1e9, bytes * batch / 1e9, settings.work.dtype,
        flops / (bytes * batch)));
    product.document["step"] = {{"tokens", step.batch}, {"flops", flops}, {"bytes", bytes * batch}};
  } else {
    product.columns.push_back({"input_gradient_flops", "dX MFLOP", 1e6, 3});
    product.columns.push_back({"weight_gradient_flops", "dW MFLOP", 1e6, 3});
  }
  product.columns.push_back({"bytes", "MB", 1e6, 3});
  product.columns.push_back({"share", "share %", 0.01, 2});
  for (const std::string& fact : product.facts) product.text += fact + "\n";
  product.text += decode ? decode_rows_text(rows) : rows_text(rows);
  product.more = {{.heading = "Operations a token", .bars = std::move(bars)}};
  return product;
}

}  // namespace ds::profile
