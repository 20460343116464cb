#include "libcore/cli/app.h"
#include "tools/convert/adapter.h"
#include "tools/convert/data.h"
#include "tools/convert/data_options.h"
#include "tools/convert/merge.h"
#include "tools/convert/options.h"
#include "tools/convert/weights.h"

int main(int argc, char** argv) {
  using namespace ds::convert;
  WeightsSettings weights;
  MergeSettings merge;
  AdapterSettings adapter;
  DataSettings data;
  const ds::cli::Program program{
      .name = "deepseek-convert",
      .summary = "weights, adapters and data in other formats",
      .subcommands = {{"weights", "a checkpoint in another dtype or layout",
                       [&](CLI::App& app) { declare_weights(app, weights); },
                       [&](ds::cli::Run& run) { run_weights(weights, run); }},
                      {"merge", "a model with an adapter's changes in its weights",
                       [&](CLI::App& app) { declare_merge(app, merge); },
                       [&](ds::cli::Run& run) { run_merge(merge, run); }},
                      {"adapter", "an adapter in another layout",
                       [&](CLI::App& app) { declare_adapter(app, adapter); },
                       [&](ds::cli::Run& run) { run_adapter(adapter, run); }},
                      {"data", "rows of training data in another format",
                       [&](CLI::App& app) { declare_data(app, data); },
                       [&](ds::cli::Run& run) { run_data(data, run); }}},
      .heaps = 8};
  return ds::cli::run_main(argc, argv, program);
}
