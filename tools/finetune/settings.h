// What a user can set, one struct a domain. Defaults are those of the command contract.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace ds::finetune {

struct ModelSettings {
  std::string model;    // folder or name
  std::string adapter;  // folder, empty: none
  std::string dtype = "f32";
};

struct DataSettings {
  std::vector<std::string> dataset;
  std::vector<std::string> eval_dataset;
  std::string chat_template = "auto";
  bool thinking = false;
  std::int64_t cutoff_len = 2048;
  std::string truncation = "proportional";
  bool packing = false;
  bool train_on_prompt = false;
  bool mask_history = false;
  bool shuffle = true;
  std::string encoding = "replace";
};

struct AdapterSettings {
  std::string peft_method = "lora";
  std::int64_t r = 8;
  double alpha = 16.0;
  double dropout = 0.0;
  std::string target = "all";
  bool use_rslora = false;
  bool use_dora = false;
  std::string rank_pattern;   // JSON object
  std::string alpha_pattern;  // JSON object
  std::vector<std::int64_t> layers_to_transform;
  double loraplus_lr_ratio = 16.0;
  double loraplus_lr_embedding = 1e-6;
  std::string trainable_budget;  // "0.3%"
  std::string init = "true";
};

struct OptimSettings {
  double learning_rate = 1e-4;
  std::string scheduler = "linear";
  std::int64_t warmup_steps = 0;
  double warmup_ratio = 0.0;
  std::int64_t batch_size = 1;
  std::int64_t accumulation = 1;
  double max_grad_norm = 1.0;
  double weight_decay = 0.0;
  double adam_beta1 = 0.9;
  double adam_beta2 = 0.999;
  double adam_epsilon = 1e-8;
  std::int64_t max_steps = 0;  // 0: from the epochs
  double epochs = 3.0;
  std::int64_t seed = 42;
};

struct StageSettings {
  std::string steps;
  std::string lr_factors;
  std::string targets;
  std::string data;
  bool reset_optimizer = false;
};

struct MemorySettings {
  std::string activation_checkpointing = "none";
  std::optional<double> selective_threshold;      // absent: every layer in every update
  std::optional<std::int64_t> selective_refresh;  // absent: as in SelectionSettings
  std::optional<double> selective_decay;
  std::string weight_streaming = "auto";
  std::string memory_limit;  // "8GiB"; empty: what the machine has
};

struct StateSettings {
  std::string output_dir;
  std::int64_t save_steps = 500;  // 0: only at the end of a stage
  std::int64_t save_total_limit = 0;
  std::string resume;  // "latest" or a folder
  bool overwrite_output_dir = false;
  bool dry_run = false;
  std::int64_t eval_steps = 0;  // 0: at stage ends
  std::int64_t logging_steps = 1;
};

struct TrainSettings {
  ModelSettings model;
  DataSettings data;
  AdapterSettings adapter;
  OptimSettings optim;
  StageSettings stage;
  MemorySettings memory;
  StateSettings state;
};

struct EvalSettings {
  ModelSettings model;
  DataSettings data;
  std::string metric = "loss";
  std::int64_t max_new_tokens = 64;
  std::int64_t batch_size = 32;
  std::string predictions;
  std::string dump_logits;
};

struct GenerateSettings {
  ModelSettings model;
  std::string chat_template = "auto";
  bool thinking = false;
  std::string prompt;
  std::string messages;
  bool raw = false;  // the prompt is plain text, no template
  std::int64_t max_new_tokens = 256;
  double temperature = 0.0;
  double top_p = 1.0;
  std::int64_t seed = 42;
};

struct InfoSettings {
  std::string model;
  std::string adapter_folder;  // --adapter: counts of this adapter instead of the settings below
  AdapterSettings adapter;
};

}  // namespace ds::finetune
