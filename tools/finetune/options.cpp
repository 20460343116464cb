#include "tools/finetune/options.h"

namespace ds::finetune {

namespace {

CLI::Option* words(CLI::Option* option, std::vector<std::string> known) {
  return option->check(CLI::IsMember(std::move(known)))->capture_default_str();
}

// A count that may be 0, and one that may not.
CLI::Option* count(CLI::Option* option) {
  return option->check(CLI::Range(std::int64_t{0}, std::int64_t{1} << 40))->capture_default_str();
}
CLI::Option* positive(CLI::Option* option) {
  return option->check(CLI::Range(std::int64_t{1}, std::int64_t{1} << 40))->capture_default_str();
}
CLI::Option* share(CLI::Option* option) {
  return option->check(CLI::Range(0.0, 1.0))->capture_default_str();
}
CLI::Option* not_negative(CLI::Option* option) {
  return option->check(CLI::Range(0.0, 1e30))->capture_default_str();
}

void add_model(CLI::App& app, std::string& model) {
  app.add_option("--model", model, "folder, or a name looked up in DEEPSEEK_MODELS and the cache")
      ->required()
      ->group("Model");
}

void add_dtype(CLI::App& app, std::string& dtype) {
  words(app.add_option("--dtype", dtype, "compute dtype"), {"f32", "bf16"})->group("Model");
}

void add_template(CLI::App& app, std::string& name, bool& thinking) {
  words(app.add_option("--template", name, "chat template"), {"auto", "v2", "v3", "v3.1", "r1"})
      ->group("Data");
  app.add_flag("--thinking", thinking, "render in thinking mode")->group("Data");
}

void add_data(CLI::App& app, DataSettings& s) {
  const char* group = "Data";
  app.add_option("--dataset", s.dataset, "JSON lines or JSON array, comma-separated files")
      ->delimiter(',')
      ->required()
      ->group(group);
  add_template(app, s.chat_template, s.thinking);
  positive(app.add_option("--cutoff_len", s.cutoff_len, "longest row in tokens"))->group(group);
  words(app.add_option("--truncation", s.truncation, "what happens to longer rows"),
        {"proportional", "left", "right", "skip", "error"})
      ->group(group);
  app.add_flag("--train_on_prompt", s.train_on_prompt, "learn the prompt as well")->group(group);
  app.add_flag("--shuffle", s.shuffle, "training: new order every epoch (default true)")
      ->group(group);
  app.add_flag("--mask_history", s.mask_history, "learn only the last answer")->group(group);
  words(app.add_option("--encoding_errors", s.encoding, "rows that are not UTF-8"),
        {"replace", "skip", "error"})
      ->group(group);
}

void add_adapter(CLI::App& app, AdapterSettings& s) {
  const char* group = "Adapter";
  words(app.add_option("--peft_method", s.peft_method, "what is trained"),
        {"lora", "lora_plus", "full"})
      ->group(group);
  positive(app.add_option("--lora_r", s.r, "rank"))->group(group);
  not_negative(app.add_option("--lora_alpha", s.alpha, "scale is alpha / r"))->group(group);
  app.add_option("--lora_dropout", s.dropout, "on the adapter's input")
      ->check(CLI::Range(0.0, 0.999))
      ->capture_default_str()
      ->group(group);
  app.add_option("--lora_target", s.target,
                 "attention, mlp, shared_experts, experts, all, names, or re:REGEX")
      ->capture_default_str()
      ->group(group);
  app.add_flag("--use_rslora", s.use_rslora, "scale is alpha / sqrt(r)")->group(group);
  app.add_flag("--use_dora", s.use_dora, "weight-decomposed LoRA")->group(group);
  app.add_option("--rank_pattern", s.rank_pattern, "JSON object: module name to rank")
      ->group(group);
  app.add_option("--alpha_pattern", s.alpha_pattern, "JSON object: module name to alpha")
      ->group(group);
  app.add_option("--layers_to_transform", s.layers_to_transform, "only these layers")
      ->delimiter(',')
      ->group(group);
  words(app.add_option("--init_lora_weights", s.init, "as in PEFT"), {"true", "gaussian", "false"})
      ->group(group);
  app.add_option("--loraplus_lr_ratio", s.loraplus_lr_ratio, "rate of B over rate of A")
      ->check(CLI::Range(1.0, 1e6))
      ->capture_default_str()
      ->group(group);
  not_negative(app.add_option("--loraplus_lr_embedding", s.loraplus_lr_embedding,
                              "rate of embedding adapters"))
      ->group(group);
  app.add_option("--trainable_budget", s.trainable_budget,
                 "largest rank below this share of the parameters, such as 0.3%")
      ->group(group);
}

void add_optim(CLI::App& app, OptimSettings& s) {
  const char* group = "Optimisation";
  not_negative(app.add_option("--learning_rate", s.learning_rate, "of A and of all other weights"))
      ->group(group);
  words(app.add_option("--lr_scheduler_type", s.scheduler, "schedule"),
        {"linear", "cosine", "cosine_with_restarts", "constant", "constant_with_warmup",
         "inverse_sqrt"})
      ->group(group);
  count(app.add_option("--warmup_steps", s.warmup_steps, "from rate 0"))->group(group);
  share(app.add_option("--warmup_ratio", s.warmup_ratio, "of all steps"))->group(group);
  positive(app.add_option("--per_device_train_batch_size", s.batch_size, "rows of a micro-batch"))
      ->group(group);
  positive(
      app.add_option("--gradient_accumulation_steps", s.accumulation, "micro-batches of an update"))
      ->group(group);
  not_negative(app.add_option("--max_grad_norm", s.max_grad_norm, "0: no clipping"))->group(group);
  not_negative(app.add_option("--weight_decay", s.weight_decay, "AdamW"))->group(group);
  app.add_option("--adam_beta1", s.adam_beta1, "AdamW")
      ->check(CLI::Range(0.0, 0.9999999))
      ->capture_default_str()
      ->group(group);
  app.add_option("--adam_beta2", s.adam_beta2, "AdamW")
      ->check(CLI::Range(0.0, 0.9999999))
      ->capture_default_str()
      ->group(group);
  not_negative(app.add_option("--adam_epsilon", s.adam_epsilon, "AdamW"))->group(group);
  count(app.add_option("--max_steps", s.max_steps, "updates of the run; 0: by epochs"))
      ->group(group);
  app.add_option("--num_train_epochs", s.epochs, "passes over the data")
      ->check(CLI::Range(1e-6, 1e9))
      ->capture_default_str()
      ->group(group);
  count(app.add_option("--seed", s.seed, "of initial weights, order and dropout"))->group(group);
}

void add_stages(CLI::App& app, StageSettings& s) {
  const char* group = "Stages";
  app.add_option("--stage_steps", s.steps, "cumulative ends, such as \"1000,3000,5000\"")
      ->group(group);
  app.add_option("--stage_lr_factors", s.lr_factors, "one a stage, such as \"1,0.5,0.1\"")
      ->group(group);
  app.add_option("--stage_targets", s.targets, "what each stage trains, separated by ';'")
      ->group(group);
  app.add_option("--stage_data", s.data, "curriculum, or one file a stage")->group(group);
  app.add_flag("--stage_reset_optimizer", s.reset_optimizer, "forget the moments at a border")
      ->group(group);
}

void add_memory(CLI::App& app, MemorySettings& s) {
  const char* group = "Memory";
  words(app.add_option("--activation_checkpointing", s.activation_checkpointing,
                       "recompute activations in the backward pass"),
        {"none", "selective", "full"})
      ->group(group);
  app.add_option("--selective_computation_threshold", s.selective_threshold,
                 "train only layers at or above this quantile of importance, such as 0.7")
      ->group(group);
  app.add_option("--selective_computation_refresh", s.selective_refresh,
                 "train and measure all layers every so many updates")
      ->group(group);
  app.add_option("--selective_computation_decay", s.selective_decay,
                 "of the mean importance over these updates")
      ->group(group);
  app.add_option("--memory_limit", s.memory_limit, "memory this run may use, such as 8GiB")
      ->group(group);
  words(app.add_option("--weight_streaming", s.weight_streaming,
                       "read the base layer by layer: when it does not fit, always, never"),
        {"auto", "always", "never"})
      ->group(group);
}

void add_state(CLI::App& app, StateSettings& s) {
  const char* group = "State and output";
  app.add_option("--output_dir", s.output_dir, "where everything goes")->required()->group(group);
  count(app.add_option("--save_steps", s.save_steps, "checkpoint every N steps; 0: stage ends"))
      ->group(group);
  count(app.add_option("--save_total_limit", s.save_total_limit, "keep the newest N; 0: all"))
      ->group(group);
  count(app.add_option("--eval_steps", s.eval_steps, "evaluate every N steps; 0: stage ends"))
      ->group(group);
  app.add_option("--resume_from_checkpoint", s.resume, "latest, or a checkpoint-N folder")
      ->group(group);
  app.add_flag("--overwrite_output_dir", s.overwrite_output_dir, "delete an earlier run's files")
      ->group(group);
  app.add_flag("--dry_run", s.dry_run, "check everything, print the plan, write nothing")
      ->group(group);
}

}  // namespace

void declare_train(CLI::App& app, TrainSettings& s) {
  add_model(app, s.model.model);
  app.add_option("--adapter", s.model.adapter, "continue from these weights")->group("Model");
  add_dtype(app, s.model.dtype);
  add_data(app, s.data);
  app.add_option("--eval_dataset", s.data.eval_dataset, "held-out rows, comma-separated files")
      ->delimiter(',')
      ->group("Data");
  app.add_flag("--packing", s.data.packing, "several rows fill a micro-batch's rows")
      ->group("Data");
  add_adapter(app, s.adapter);
  add_optim(app, s.optim);
  add_stages(app, s.stage);
  add_memory(app, s.memory);
  add_state(app, s.state);
}

void declare_eval(CLI::App& app, EvalSettings& s) {
  add_model(app, s.model.model);
  app.add_option("--adapter", s.model.adapter, "apply this adapter")->group("Model");
  add_dtype(app, s.model.dtype);
  add_data(app, s.data);
  const char* group = "Evaluation";
  words(app.add_option("--metric", s.metric, "what is measured"), {"loss", "exact_match", "choice"})
      ->group(group);
  positive(app.add_option("--max_new_tokens", s.max_new_tokens, "longest answer"))->group(group);
  positive(app.add_option("--batch_size", s.batch_size, "sequences generated at once"))
      ->group(group);
  app.add_option("--predictions", s.predictions, "write one JSON line a row")->group(group);
  app.add_option("--dump_logits", s.dump_logits, "write logits as safetensors")->group(group);
}

void declare_generate(CLI::App& app, GenerateSettings& s) {
  add_model(app, s.model.model);
  app.add_option("--adapter", s.model.adapter, "apply this adapter")->group("Model");
  add_dtype(app, s.model.dtype);
  add_template(app, s.chat_template, s.thinking);
  const char* group = "Generation";
  app.add_option("--prompt", s.prompt, "one user message")->group(group);
  app.add_option("--messages", s.messages, "JSON file of messages")->group(group);
  app.add_flag("--raw", s.raw, "the prompt is plain text, no template")->group(group);
  positive(app.add_option("--max_new_tokens", s.max_new_tokens, "longest answer"))->group(group);
  not_negative(app.add_option("--temperature", s.temperature, "0 is greedy"))->group(group);
  app.add_option("--top_p", s.top_p, "nucleus sampling")
      ->check(CLI::Range(1e-6, 1.0))
      ->capture_default_str()
      ->group(group);
  count(app.add_option("--seed", s.seed, "of sampling"))->group(group);
}

void declare_info(CLI::App& app, InfoSettings& s) {
  add_model(app, s.model);
  app.add_option("--adapter", s.adapter_folder, "count this adapter")->group("Model");
  add_adapter(app, s.adapter);
}

}  // namespace ds::finetune
