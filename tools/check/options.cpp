#include "tools/check/options.h"

namespace ds::check {

void declare_check(CLI::App& app, CheckSettings& s) {
  const char* inputs = "Inputs";
  app.add_option("--path,path", s.paths,
                 "checkpoint, shard, GGUF file, adapter, tokenizer or dataset: what it is gets "
                 "detected")
      ->delimiter('\n')
      ->group(inputs);
  app.add_option("--model", s.model,
                 "checkpoint folder, GGUF model, inference shards, or a model's name")
      ->group(inputs);
  app.add_option("--adapter", s.adapter,
                 "adapter folder or GGUF adapter; with --model, checked against it")
      ->group(inputs);
  app.add_option("--dataset", s.dataset, "dataset; with --model, checked against its tokenizer")
      ->group(inputs);
  app.add_flag("--deep", s.deep, "read the tensors' data as well")->group(inputs);
  app.add_option("--cutoff_len", s.cutoff_len, "with --model: tokens that a row may have")
      ->check(CLI::Range(2, 1 << 30))
      ->capture_default_str()
      ->group(inputs);
  const char* compatibility = "Compatibility";
  app.add_flag("--compatibility", s.compatibility,
               "also: can it go to V3.1, to other stacks, to given GPUs, and through this machine")
      ->group(compatibility);
  app.add_option("--from", s.from, "migration from v3 or r1; each open step is a finding")
      ->group(compatibility);
  app.add_option("--to", s.to, "migration to v3.1")->group(compatibility);
  app.add_option(
         "--target", s.target,
         "transformers, peft, vllm, sglang, llama.cpp or deepseek-inference: only that one, "
         "and what it refuses is a finding")
      ->group(compatibility);
  app.add_option("--hardware", s.hardware, "GPUs it is meant for, such as 8xH100-80G")
      ->group(compatibility);
  app.add_option("--context", s.context,
                 "with --hardware: tokens of a sequence; default 4096, or what the model has")
      ->check(CLI::Range(1, 1 << 24))
      ->group(compatibility);
  app.add_option("--batch", s.batch, "with --hardware: sequences at the same time")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str()
      ->group(compatibility);
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
  const char* repairs = "Repairs";
  app.add_flag("--fix", s.fix, "repair what has one right answer; FILE is kept as FILE.orig")
      ->group(repairs);
  app.add_option("--fix_output", s.fix_output, "repair into this new file or folder instead")
      ->group(repairs);
}

void declare_list(CLI::App& app, ListSettings& s) {
  app.add_option("--path,path", s.path,
                 "checkpoint, safetensors or GGUF file, inference shards or adapter")
      ->required()
      ->group("Inputs");
}

void declare_rules(CLI::App& app, RulesSettings& s) {
  app.add_flag("--markdown", s.markdown, "the text of docs/rules.md")->group("Output");
}

void declare_explain(CLI::App& app, ExplainSettings& s) {
  app.add_option("--rule,rule", s.rule, "a rule's id or name")->required()->group("Inputs");
}

void declare_canary(CLI::App& app, CanarySettings& s) {
  const auto words = [](CLI::Option* option, std::vector<std::string> known) {
    option->check(CLI::IsMember(std::move(known)))->capture_default_str();
    return option;
  };
  const char* models = "Models and traffic";
  app.add_option("--baseline", s.baseline, "model in use: folder or name")
      ->required()
      ->group(models);
  app.add_option("--candidate", s.candidate, "model to take its place")->required()->group(models);
  app.add_option("--baseline_adapter", s.baseline_adapter, "adapter folder")->group(models);
  app.add_option("--candidate_adapter", s.candidate_adapter, "adapter folder")->group(models);
  app.add_option("--dataset", s.dataset, "traffic with reference answers")
      ->required()
      ->delimiter(',')
      ->group(models);
  app.add_option("--template", s.chat_template, "auto, v2, v3, v3.1 or r1")
      ->capture_default_str()
      ->group(models);
  app.add_flag("--thinking", s.thinking, "thinking mode of the template")->group(models);
  app.add_option("--cutoff_len", s.cutoff_len, "most tokens of a row")
      ->check(CLI::Range(std::int64_t{2}, std::int64_t{1} << 24))
      ->capture_default_str()
      ->group(models);
  words(app.add_option("--dtype", s.dtype, "compute dtype"), {"f32", "bf16"})->group(models);
  app.add_option("--max_new_tokens", s.max_new_tokens, "most tokens of an answer")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 20))
      ->capture_default_str()
      ->group(models);
  app.add_option("--batch_size", s.batch_size, "rows answered at once")
      ->check(CLI::Range(std::int64_t{1}, std::int64_t{65536}))
      ->capture_default_str()
      ->group(models);
  const char* gates = "Stages and gates";
  app.add_option("--stages", s.stages, "growing shares of the traffic, per cent")
      ->capture_default_str()
      ->group(gates);
  app.add_option("--until", s.until, "last stage of this run, per cent")
      ->check(CLI::Range(0.0, 100.0))
      ->capture_default_str()
      ->group(gates);
  app.add_option("--gate", s.gates,
                 "such as loss_increase<=0.02; may be repeated; that one is the default")
      ->delimiter('\n')
      ->group(gates);
  words(app.add_option("--undecided", s.undecided, "a gate still undecided at the last stage"),
        {"fail", "pass"})
      ->group(gates);
  app.add_option("--state", s.state, "file that lets the next run go on from here")->group(gates);
  app.add_option("--seed", s.seed, "order of the rows")->capture_default_str()->group(gates);
}

}  // namespace ds::check
