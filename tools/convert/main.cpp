#include "libcore/cli/app.h"
#include "tools/convert/options.h"
#include "tools/convert/weights.h"

int main(int argc, char** argv) {
  using namespace ds::convert;
  WeightsSettings weights;
  const ds::cli::Program program{
      .name = "deepseek-convert",
      .summary = "weights, adapters and data in other formats",
      .subcommands = {{"weights", "a checkpoint in another dtype or layout",
                       [&](CLI::App& app) { declare_weights(app, weights); },
                       [&](ds::cli::Run& run) { run_weights(weights, run); }}}};
  return ds::cli::run_main(argc, argv, program);
}
