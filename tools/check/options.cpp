#include "tools/check/options.h"

namespace ds::check {

void declare_check(CLI::App& app, CheckSettings& s) {
  const char* inputs = "Inputs";
  app.add_option("--path,path", s.paths,
                 "checkpoint, shard, adapter, tokenizer or dataset: what it is gets detected")
      ->delimiter('\n')
      ->group(inputs);
  app.add_option("--model", s.model, "checkpoint folder, or a model's name")->group(inputs);
  app.add_option("--adapter", s.adapter, "adapter folder; with --model, checked against it")
      ->group(inputs);
  app.add_option("--dataset", s.dataset, "dataset; with --model, checked against its tokenizer")
      ->group(inputs);
  app.add_flag("--deep", s.deep, "read the tensors' data as well")->group(inputs);
  const char* findings = "Findings";
  app.add_option("--fail_on", s.fail_on, "exit with 1 for findings of this severity or worse")
      ->check(CLI::IsMember({"error", "warning"}))
      ->capture_default_str()
      ->group(findings);
  app.add_option("--select", s.select, "only these rules or groups, separated by commas")
      ->group(findings);
  app.add_option("--ignore", s.ignore, "not these rules or groups")->group(findings);
  app.add_option("--baseline", s.baseline, "known findings: the JSON of an earlier check")
      ->group(findings);
  app.add_option("--max_findings", s.max_findings, "show at most so many; 0: all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str()
      ->group(findings);
}

void declare_list(CLI::App& app, ListSettings& s) {
  app.add_option("--path,path", s.path, "checkpoint folder, safetensors file or adapter folder")
      ->required()
      ->group("Inputs");
}

void declare_rules(CLI::App& app, RulesSettings& s) {
  app.add_flag("--markdown", s.markdown, "the text of docs/rules.md")->group("Output");
}

void declare_explain(CLI::App& app, ExplainSettings& s) {
  app.add_option("--rule,rule", s.rule, "a rule's id or name")->required()->group("Inputs");
}

}  // namespace ds::check
