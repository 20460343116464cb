#include "libcore/cli/app.h"
#include "tools/finetune/eval.h"
#include "tools/finetune/generate.h"
#include "tools/finetune/info.h"
#include "tools/finetune/options.h"
#include "tools/finetune/train.h"

int main(int argc, char** argv) {
  using namespace ds::finetune;
  TrainSettings train;
  EvalSettings eval;
  GenerateSettings generate;
  InfoSettings info;
  const ds::cli::Program program{
      .name = "deepseek-finetune",
      .summary = "adapt a DeepSeek checkpoint to your data",
      .subcommands = {{"train", "train an adapter (or all parameters)",
                       [&](CLI::App& app) { declare_train(app, train); },
                       [&](ds::cli::Run& run) { run_train(train, run); }},
                      {"eval", "loss, exact match or choice accuracy on held-out rows",
                       [&](CLI::App& app) { declare_eval(app, eval); },
                       [&](ds::cli::Run& run) { run_eval(eval, run); }},
                      {"generate", "continue a conversation",
                       [&](CLI::App& app) { declare_generate(app, generate); },
                       [&](ds::cli::Run& run) { run_generate(generate, run); }},
                      {"info", "architecture, parameters, what an adapter would train",
                       [&](CLI::App& app) { declare_info(app, info); },
                       [&](ds::cli::Run& run) { run_info(info, run); }}}};
  return ds::cli::run_main(argc, argv, program);
}
