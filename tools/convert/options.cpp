#include "tools/convert/options.h"

namespace ds::convert {

namespace {

CLI::Option* words(CLI::Option* option, std::vector<std::string> known) {
  return option->check(CLI::IsMember(std::move(known)))->capture_default_str();
}

// The flags of every subcommand that writes weights.
void add_output(CLI::App& app, OutputSettings& s) {
  const char* group = "Output";
  app.add_option("--output,output", s.output, "folder or GGUF file to make")
      ->required()
      ->group(group);
  app.add_flag("--force", s.force, "replace an existing output")->group(group);
  app.add_flag("--resume", s.resume, "go on where an interrupted run stopped")->group(group);
  app.add_flag("--dry_run", s.dry_run, "print the plan and write nothing")->group(group);
  app.add_option("--memory_limit", s.memory_limit, "resident memory, at most")
      ->capture_default_str()
      ->group(group);
}

}  // namespace

void declare_weights(CLI::App& app, WeightsSettings& s) {
  const char* group = "Weights";
  app.add_option("--input,input", s.input, "checkpoint folder, a model's name, or a GGUF file")
      ->required()
      ->group(group);
  add_output(app, s.out);
  words(app.add_option("--to", s.to, "dtype or layout of the result"),
        {"bf16", "f16", "f32", "fp8", "inference", "hf", "gguf"})
      ->required()
      ->group(group);
  app.add_option("--mp", s.mp, "with --to inference: number of shards")
      ->check(CLI::Range(1, 65536))
      ->capture_default_str()
      ->group(group);
  words(app.add_option("--scale_fmt", s.scale_fmt,
                       "with --to fp8: scales; auto: as the input's, else f32"),
        {"auto", "f32", "ue8m0"})
      ->group(group);
  words(app.add_option("--scale_dtype", s.scale_dtype,
                       "with --scale_fmt ue8m0: how scales are stored"),
        {"f32", "e8m0"})
      ->group(group);
  app.add_option("--reuse_scales_from", s.reuse_scales_from,
                 "with --to fp8: FP8 checkpoint whose scales are taken")
      ->group(group);
  words(app.add_option("--mtp", s.mtp,
                       "multi-token-prediction layers; auto: keep, but drop for inference"),
        {"auto", "keep", "drop"})
      ->group(group);
  app.add_option("--max_shard_size", s.max_shard_size, "bytes of tensors in a file, at most")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--allow_overflow", s.allow_overflow,
               "with --to f16 or gguf: values beyond 65504 become 65504 where f16 is stored")
      ->group(group);
  words(app.add_option("--gguf_type", s.gguf_type, "with --to gguf: storage type of the weights"),
        {"bf16", "f16", "f32", "q8_0"})
      ->group(group);
  words(app.add_option("--mla", s.mla,
                       "with --to gguf: kv_b in two tensors, or in one as llama.cpp had it before"),
        {"split", "unsplit"})
      ->group(group);
}

void declare_merge(CLI::App& app, MergeSettings& s) {
  const char* group = "Merge";
  app.add_option("--model,model", s.model, "checkpoint folder, or a model's name")
      ->required()
      ->group(group);
  app.add_option("--adapter,adapter", s.adapter, "adapter folder as PEFT writes it")
      ->required()
      ->group(group);
  add_output(app, s.out);
  words(app.add_option("--dtype", s.dtype, "dtype of the weights; keep: of each as it is"),
        {"keep", "bf16", "f32", "fp8"})
      ->group(group);
  app.add_option("--max_shard_size", s.max_shard_size,
                 "bytes of tensors in a file, at most; without it the model's files are kept")
      ->group(group);
}

void declare_adapter(CLI::App& app, AdapterSettings& s) {
  const char* group = "Adapter";
  app.add_option("--input,input", s.input, "adapter folder as PEFT writes it")
      ->required()
      ->group(group);
  add_output(app, s.out);
  words(app.add_option("--to", s.to, "layout of the result"), {"peft", "peft_fused", "gguf_lora"})
      ->required()
      ->group(group);
  app.add_option("--model", s.model, "base model, folder or name; without it the adapter's own")
      ->group(group);
}

}  // namespace ds::convert
