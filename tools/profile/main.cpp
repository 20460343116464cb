#include "libcore/cli/app.h"
#include "tools/profile/bench.h"
#include "tools/profile/layers.h"
#include "tools/profile/options.h"

int main(int argc, char** argv) {
  using namespace ds::profile;
  LayersSettings layers;
  BenchSettings bench;
  const ds::cli::Program program{
      .name = "deepseek-profile",
      .summary = "where time, memory and arithmetic go",
      .subcommands = {{"layers", "time, operations and memory by layer, measured or from formulas",
                       [&](CLI::App& app) { declare_layers(app, layers); },
                       [&](ds::cli::Run& run) { run_layers(layers, run); }},
                      {"bench", "ops and the training step against the peak of this machine",
                       [&](CLI::App& app) { declare_bench(app, bench); },
                       [&](ds::cli::Run& run) { run_bench(bench, run); }}},
      .formats = {"text", "json", "csv", "md", "html"}};
  return ds::cli::run_main(argc, argv, program);
}
