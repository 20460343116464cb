// deepseek-profile layers.
#pragma once

#include "libcore/cli/run.h"
#include "tools/profile/cost_model.h"
#include "tools/profile/product.h"
#include "tools/profile/settings.h"
#include "tools/profile/workload.h"

namespace ds::profile {

// Prints the layer breakdown: measured while the real trainer or decoder runs, or with --analytical
// from the config alone; writes --trace.
void run_layers(const LayersSettings& settings, cli::Run& run);

// The breakdown from the config alone.
Product analytical_product(const LayersSettings& settings, const ModelConfig& config);

// The formulas' side of both.
CostTable costs_of(const LayersSettings& settings, const ModelConfig& config, Method method,
                   std::vector<LoraTarget> targets, std::int64_t seq_len);
nlohmann::json totals_json(const LayersSettings& settings, const ModelConfig& config,
                           const CostTable& costs);
// Two sentences: the model, and its operations by formula.
std::vector<std::string> totals_facts(const LayersSettings& settings, const ModelConfig& config,
                                      const CostTable& costs, std::int64_t seq_len);

}  // namespace ds::profile
