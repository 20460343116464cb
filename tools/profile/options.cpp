#include "tools/profile/options.h"

namespace ds::profile {

namespace {

CLI::Option* words(CLI::Option* option, std::vector<std::string> known) {
  return option->check(CLI::IsMember(std::move(known)))->capture_default_str();
}
CLI::Option* count(CLI::Option* option, std::int64_t least, std::int64_t most) {
  return option->check(CLI::Range(least, most))->capture_default_str();
}

constexpr std::int64_t kMostTokens = std::int64_t{1} << 24;

void add_work(CLI::App& app, WorkSettings& s) {
  const char* group = "Work";
  words(app.add_option("--dtype", s.dtype, "compute dtype"), {"f32", "bf16"})->group(group);
  count(app.add_option("--seq_len", s.seq_len, "tokens of a row; decode: its context"), 2,
        kMostTokens)
      ->group(group);
  count(app.add_option("--batch", s.batch, "rows of a step"), 1, 65536)->group(group);
  words(app.add_option("--peft_method", s.peft_method,
                       "what is trained; auto: lora, but full for --analytical without lora flags"),
        {"auto", "lora", "full"})
      ->group(group);
  count(app.add_option("--lora_r", s.lora_r, "rank; 0: 8"), 0, 65536)->group(group);
  app.add_option("--lora_target", s.lora_target,
                 "attention, mlp, shared_experts, experts, all (default), names, or re:REGEX")
      ->group(group);
  words(app.add_option("--activation_checkpointing", s.activation_checkpointing,
                       "recompute activations in the backward pass"),
        {"none", "selective", "full"})
      ->group(group);
}

const char* const kModelHelp = "folder, or a name looked up in DEEPSEEK_MODELS and the cache";

}  // namespace

void declare_layers(CLI::App& app, LayersSettings& s) {
  app.add_option("--model", s.work.model, kModelHelp)->required()->group("Work");
  add_work(app, s.work);
  app.add_option("--input", s.input, "text of every row instead of --seq_len random tokens")
      ->excludes("--seq_len")
      ->group("Work");
  words(app.add_option("--mode", s.mode,
                       "a training step, the forward pass alone, or one token of each row from the "
                       "latent cache"),
        {"infer", "train", "decode"})
      ->group("Work");
  count(app.add_option("--steps", s.steps, "measured steps, after one that is not"), 1, 1000000)
      ->group("Work");
  app.add_option("--trace", s.trace, "file for a trace of the measured steps (Chrome, Perfetto)")
      ->group("Work");
  const char* group = "Formulas";
  app.add_flag("--analytical", s.analytical, "count from the config alone, run nothing")
      ->group(group);
  words(app.add_option("--convention", s.convention, "what a count of operations includes"),
        {"causal", "noncausal", "megatron", "6n"})
      ->group(group);
  words(app.add_option("--kv_dtype", s.kv_dtype, "layout of the latent cache"),
        {"bf16", "f32", "fp8"})
      ->group(group);
  app.add_flag("--mtp", s.mtp, "with --analytical: the multi-token-prediction layers as well")
      ->group(group);
}

void declare_bench(CLI::App& app, BenchSettings& s) {
  app.add_option("--model", s.work.model,
                 std::string(kModelHelp) + "; default: a small DeepSeek-V3 configuration")
      ->group("Work");
  add_work(app, s.work);
  const char* group = "Benchmark";
  words(app.add_option("--suite", s.suite, "which cases"), {"quick"})->group(group);
  count(app.add_option("--repeats", s.repeats, "measurements of a case"), 3, 10000)->group(group);
  app.add_option("--compare", s.compare, "JSON of an earlier run: print the ratios")->group(group);
}

}  // namespace ds::profile
