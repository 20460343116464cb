#include "tools/finetune/output.h"

#include <fmt/format.h>

#include <cstring>
#include <nlohmann/json.hpp>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/hash.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/model/adapter_io.h"
#include "libcore/tensor/widen.h"
#include "tools/finetune/model_card.h"
#include "tools/finetune/selective_use.h"

namespace ds::finetune {

namespace fs = std::filesystem;

namespace {

// Files of a run, as opposed to whatever else a user keeps in the folder.
const char* const kRunFiles[] = {"adapter_config.json", "adapter_model.safetensors",
                                 "README.md",           "report.jsonl",
                                 "training.svg",        "model.safetensors"};

bool is_checkpoint(const fs::path& path) {
  return path.filename().string().rfind("checkpoint-", 0) == 0;
}

std::vector<fs::path> run_files(const fs::path& output) {
  std::vector<fs::path> found;
  for (const char* name : kRunFiles) {
    if (fs::exists(output / name)) found.push_back(output / name);
  }
  for (const auto& entry : fs::directory_iterator(output)) {
    if (is_checkpoint(entry.path())) found.push_back(entry.path());
  }
  return found;
}

}  // namespace

void prepare_output(const StateSettings& settings, cli::Run& run) {
  const fs::path output = settings.output_dir;
  std::error_code error;
  fs::create_directories(output, error);
  if (error) {
    throw Error(
        ExitCode::kIo,
        fmt::format("{}: cannot create the output folder: {}", output.string(), error.message()),
        "choose another --output_dir");
  }
  const auto existing = run_files(output);
  if (!existing.empty() && settings.resume.empty()) {
    if (!settings.overwrite_output_dir) {
      throw Error(ExitCode::kUsage,
                  fmt::format("{} already holds a run ({})", output.string(),
                              existing.front().filename().string()),
                  "go on with --resume_from_checkpoint latest, start anew with "
                  "--overwrite_output_dir, or choose another --output_dir");
    }
    for (const fs::path& path : existing) fs::remove_all(path);
  }
  remove_stale_checkpoints(output);
  // A whole training run must not end at a folder that cannot be written to.
  const fs::path probe = output / ".write-test";
  write_file(probe, "ok\n");
  fs::remove(probe);
  run.open_report(output / "report.jsonl", !settings.resume.empty());
}

fs::path resume_folder(const StateSettings& settings, cli::Run& run) {
  if (settings.resume != "latest") {
    if (!fs::is_directory(settings.resume)) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("--resume_from_checkpoint {}: no such folder", settings.resume),
                  "name a checkpoint-N folder, or latest");
    }
    return settings.resume;
  }
  std::vector<std::string> skipped;
  fs::path latest = find_latest_checkpoint(settings.output_dir, skipped);
  for (const std::string& reason : skipped) run.warn("skipped " + reason);
  if (latest.empty()) {
    throw Error(ExitCode::kBadInput,
                fmt::format("--resume_from_checkpoint latest: {} holds no whole checkpoint",
                            settings.output_dir),
                "start the run without --resume_from_checkpoint");
  }
  return latest;
}

void save_weights(const fs::path& folder, const AdapterPlan& adapter, const BaseModel& base,
                  DeepSeekModel& model) {
  if (!adapter.full) {
    save_adapter(folder, adapter.lora, adapter.targets, base.config, model.parameters());
    return;
  }
  std::vector<TensorToWrite> tensors;
  for (Parameter* parameter : model.parameters()) {
    tensors.push_back({parameter->name, parameter->value.dtype(), parameter->value.shape(),
                       parameter->value.data()});
  }
  // What training leaves alone (the router's selection bias) is copied so that the folder loads.
  const Checkpoint checkpoint = Checkpoint::open(base.folder);
  for (const std::string_view name : checkpoint.names()) {
    if (name.find("e_score_correction_bias") == std::string_view::npos) continue;
    if (base.config.num_nextn_predict_layers > 0 &&
        name.find(fmt::format("model.layers.{}.", base.config.num_hidden_layers)) == 0) {
      continue;
    }
    const Checkpoint::Entry entry = checkpoint.find(name);
    tensors.push_back({std::string(name), entry.tensor->dtype, entry.tensor->shape.copy(),
                       entry.file->data(*entry.tensor)});
  }
  write_safetensors(folder / "model.safetensors", std::move(tensors), {{"format", "pt"}});
  auto config = nlohmann::ordered_json::parse(read_file(base.folder / "config.json"));
  config.erase("quantization_config");
  config[config.contains("dtype") ? "dtype" : "torch_dtype"] = "float32";
  if (config.contains("num_nextn_predict_layers")) config["num_nextn_predict_layers"] = 0;
  write_file(folder / "config.json", config.dump(2) + "\n");
  for (const char* name : {"tokenizer.json", "tokenizer_config.json", "special_tokens_map.json",
                           "generation_config.json", "chat_template.jinja"}) {
    if (fs::exists(base.folder / name)) write_file(folder / name, read_file(base.folder / name));
  }
}

void load_weights(const fs::path& folder, const AdapterPlan& adapter, DeepSeekModel& model) {
  if (!adapter.full) {
    load_adapter(folder, adapter.lora, model.parameters());
    return;
  }
  const auto file = SafetensorsFile::open(folder / "model.safetensors");
  for (Parameter* parameter : model.parameters()) {
    const TensorInfo* info = file.find(parameter->name);
    if (info == nullptr || info->shape != parameter->value.shape()) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: tensor '{}' is missing or has another shape",
                              file.path().string(), parameter->name));
    }
    // Layers hold views of the values, so the memory stays.
    const Tensor loaded = widen(file.view(*info), {}, parameter->value.dtype());
    std::memcpy(parameter->value.data(), loaded.data(), static_cast<std::size_t>(loaded.bytes()));
  }
}

bool has_product(const fs::path& output, const fs::path& checkpoint, const AdapterPlan& adapter) {
  const char* name = adapter.full ? "model.safetensors" : "adapter_model.safetensors";
  return fs::exists(output / name) && sha256_file(output / name) == sha256_file(checkpoint / name);
}

void write_run_files(const fs::path& output, const TrainSettings& settings, cli::Run& run,
                     const BaseModel& base, const AdapterPlan& adapter, const TrainData& data,
                     const std::vector<Stage>& stages, const TrainingCurve& curve,
                     const RunPosition& position) {
  ModelCard card;
  card.base = base.name;
  card.method = describe(settings.adapter, adapter);
  card.command = run.command_line();
  card.version = run.version();
  for (const Dataset& dataset : data.datasets()) {
    for (const auto& [file, format] : dataset.format_by_file) {
      card.datasets.push_back(fs::path(file).filename().string());
    }
  }
  card.rows = data.rows();
  card.steps = position.step;
  card.target_tokens = curve.target_tokens();
  card.first_loss = curve.first_loss();
  card.final_loss = curve.last_loss();
  card.eval_loss = curve.eval_loss;
  card.trainable = adapter.trainable;
  card.trainable_share = static_cast<double>(adapter.trainable) /
                         static_cast<double>(count_parameters(base.config).total());
  card.full = adapter.full;
  write_file(output / "README.md", model_card_text(card));
  std::vector<std::int64_t> ends;
  if (stages.size() > 1) {
    for (const Stage& stage : stages) ends.push_back(stage.last_step);
  }
  write_file(output / "training.svg", training_svg(curve.points(), ends));
}

std::map<std::string, std::string> result_settings(const TrainSettings& s,
                                                   const AdapterPlan& adapter,
                                                   ChatTemplate chat_template) {
  const auto number = [](double value) { return fmt::format("{}", value); };
  const auto flag = [](bool value) { return std::string(value ? "true" : "false"); };
  std::map<std::string, std::string> settings{
      {"dtype", s.model.dtype},
      {"template", std::string(chat_template_name(chat_template))},
      {"thinking", flag(s.data.thinking)},
      {"cutoff_len", std::to_string(s.data.cutoff_len)},
      {"truncation", s.data.truncation},
      {"packing", flag(s.data.packing)},
      {"train_on_prompt", flag(s.data.train_on_prompt)},
      {"mask_history", flag(s.data.mask_history)},
      {"shuffle", flag(s.data.shuffle)},
      {"encoding_errors", s.data.encoding},
      {"peft_method", s.adapter.peft_method},
      {"learning_rate", number(s.optim.learning_rate)},
      {"lr_scheduler_type", s.optim.scheduler},
      {"warmup_steps", std::to_string(s.optim.warmup_steps)},
      {"warmup_ratio", number(s.optim.warmup_ratio)},
      {"per_device_train_batch_size", std::to_string(s.optim.batch_size)},
      {"gradient_accumulation_steps", std::to_string(s.optim.accumulation)},
      {"max_grad_norm", number(s.optim.max_grad_norm)},
      {"weight_decay", number(s.optim.weight_decay)},
      {"adam_beta1", number(s.optim.adam_beta1)},
      {"adam_beta2", number(s.optim.adam_beta2)},
      {"adam_epsilon", number(s.optim.adam_epsilon)},
      {"seed", std::to_string(s.optim.seed)},
      {"stage_steps", s.stage.steps},
      {"stage_lr_factors", s.stage.lr_factors},
      {"stage_targets", s.stage.targets},
      {"stage_data", s.stage.data},
      {"stage_reset_optimizer", flag(s.stage.reset_optimizer)},
  };
  if (s.adapter.peft_method == "lora_plus") {
    settings["loraplus_lr_ratio"] = number(s.adapter.loraplus_lr_ratio);
    settings["loraplus_lr_embedding"] = number(s.adapter.loraplus_lr_embedding);
  }
  if (!adapter.full) {
    std::string targets;
    for (const LoraTarget& target : adapter.targets) {
      targets += fmt::format("{} {} {}\n", target.module.path, target.rank, target.scaling);
    }
    settings["lora_targets"] = sha256(targets);
    settings["lora_r"] = std::to_string(adapter.lora.r);
    settings["lora_alpha"] = number(adapter.lora.alpha);
    settings["lora_dropout"] = number(adapter.lora.dropout);
    settings["use_dora"] = flag(adapter.lora.use_dora);
    settings["init_lora_weights"] = adapter.lora.init;
  }
  if (const auto selection = selection_settings(s.memory)) {
    settings["selective_computation"] =
        fmt::format("threshold {} refresh {} decay {}", selection->threshold, selection->refresh,
                    selection->decay);
  }
  return settings;
}

}  // namespace ds::finetune
