#include "libcore/cli/app.h"
#include "tools/check/canary.h"
#include "tools/check/check.h"
#include "tools/check/list.h"
#include "tools/check/options.h"
#include "tools/check/rules.h"

int main(int argc, char** argv) {
  using namespace ds::check;
  CheckSettings check;
  ListSettings list;
  RulesSettings rules;
  ExplainSettings explain;
  CanarySettings canary;
  const ds::cli::Program program{
      .name = "deepseek-check",
      .summary = "what is wrong with a checkpoint, adapter, tokenizer or dataset",
      .subcommands = {{"check", "report what is wrong",
                       [&](CLI::App& app) { declare_check(app, check); },
                       [&](ds::cli::Run& run) { run_check(check, run); }},
                      {"list", "the tensors of a checkpoint, shard, GGUF file or adapter",
                       [&](CLI::App& app) { declare_list(app, list); },
                       [&](ds::cli::Run& run) { run_list(list, run); }},
                      {"rules", "everything that is looked for",
                       [&](CLI::App& app) { declare_rules(app, rules); },
                       [&](ds::cli::Run& run) { run_rules(rules, run); }},
                      {"explain", "one rule: why it matters and what to do",
                       [&](CLI::App& app) { declare_explain(app, explain); },
                       [&](ds::cli::Run& run) { run_explain(explain, run); }},
                      {"canary", "whether a candidate may take the place of a baseline",
                       [&](CLI::App& app) { declare_canary(app, canary); },
                       [&](ds::cli::Run& run) { run_canary(canary, run); }}},
      .bare_words = true,
      .formats = {"text", "json", "junit", "sarif"},
      .heaps = 8};
  return ds::cli::run_main(argc, argv, program);
}
