#include "tools/finetune/train.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/stop.h"
#include "libcore/base/system.h"
#include "libcore/eval/evaluator.h"
#include "libcore/optim/schedule.h"
#include "libcore/train/checkpoint_state.h"
#include "libcore/train/lora_init.h"
#include "libcore/train/memory_plan.h"
#include "libcore/train/stages.h"
#include "libcore/train/trainer.h"
#include "tools/finetune/output.h"
#include "tools/finetune/plan_report.h"
#include "tools/finetune/selective_use.h"
#include "tools/finetune/session.h"
#include "tools/finetune/train_data.h"

namespace ds::finetune {

namespace {

using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

OptimizerConfig optimizer_config(const TrainSettings& settings, bool lora_plus) {
  return {.learning_rate = settings.optim.learning_rate,
          .lora_plus = lora_plus,
          .loraplus_lr_ratio = settings.adapter.loraplus_lr_ratio,
          .loraplus_lr_embedding = settings.adapter.loraplus_lr_embedding,
          .weight_decay = settings.optim.weight_decay,
          .beta1 = settings.optim.adam_beta1,
          .beta2 = settings.optim.adam_beta2,
          .epsilon = settings.optim.adam_epsilon,
          .max_grad_norm = settings.optim.max_grad_norm};
}

Streaming streaming_of(const std::string& spelling) {
  if (spelling == "always") return Streaming::kAlways;
  return spelling == "never" ? Streaming::kNever : Streaming::kAuto;
}

// Everything of one run, in the order it comes to life.
class TrainRun {
 public:
  TrainRun(const TrainSettings& settings, cli::Run& run) : settings_(settings), run_(run) {}
  void execute();

 private:
  void prepare();  // reads and checks everything but the weights
  void plan_steps();
  MemoryRequest memory_request() const;
  void check_memory();
  void load_model();
  void resume_or_start();
  void train();
  void begin_stage(std::size_t stage);
  void step_event(const UpdateReport& report, double seconds);
  void evaluate();
  void checkpoint();
  void finish();
  RunIdentity identity() const;
  StepEstimate estimate() const;
  Plan plan() const;

  const TrainSettings& settings_;
  cli::Run& run_;
  BaseModel base_;
  std::optional<Checkpoint> checkpoint_;  // until the model takes it
  ChatTemplate template_ = ChatTemplate::kV31;
  AdapterPlan adapter_;
  std::unique_ptr<TrainData> data_;
  std::optional<Dataset> eval_data_;
  std::vector<Stage> stages_;
  Schedule schedule_;
  std::int64_t total_steps_ = 0;
  MemoryPlan memory_;
  RunIdentity identity_;
  std::unique_ptr<DeepSeekModel> model_;
  std::unique_ptr<Optimizer> optimizer_;
  std::unique_ptr<Device> device_;
  std::optional<SelectionSettings> selection_settings_;
  std::unique_ptr<LayerSelection> selection_;
  std::unique_ptr<Trainer> trainer_;
  RunPosition position_;
  std::size_t stage_ = 0;
  std::int64_t first_step_ = 0;  // finished when this process began
  std::int64_t last_saved_ = -1;
  TrainingCurve curve_;
  SelectiveUse selective_use_;
  Clock::time_point started_;
  double trained_seconds_ = 0.0;
  std::int64_t trained_tokens_ = 0;
};

void TrainRun::execute() {
  prepare();
  plan_steps();
  check_memory();
  if (settings_.state.dry_run) {
    const Plan plan = this->plan();
    run_.product(plan_text(plan), plan_json(plan));
    return;
  }
  prepare_output(settings_.state, run_);
  identity_ = identity();
  load_model();
  resume_or_start();
  train();
  finish();
}

void TrainRun::prepare() {
  base_ = find_base(settings_.model.model);
  checkpoint_ = Checkpoint::open(base_.folder);
  std::string said;
  template_ = choose_template(settings_.data.chat_template, base_, said);
  if (!said.empty()) run_.warn(said);
  adapter_ = settings_.model.adapter.empty() || settings_.adapter.peft_method == "full"
                 ? plan_adapter(settings_.adapter, base_)
                 : plan_adapter_folder(settings_.model.adapter, base_.config);
  adapter_.lora_plus = settings_.adapter.peft_method == "lora_plus";
  adapter_.lora.dropout = settings_.adapter.dropout;  // a written config never carries it
  // Refused before any data is read.
  selection_settings_ = selection_settings(settings_.memory);
  if (selection_settings_) plan_selection(*selection_settings_, adapter_, 0);
  run_.input(base_.folder / "config.json");

  data_ = std::make_unique<TrainData>(settings_, base_, template_);
  for (const Dataset& dataset : data_->datasets()) {
    report_data(run_, dataset, "train");
  }
  if (!settings_.data.eval_dataset.empty()) {
    const Tokenizer* tokenizer = base_.tokenizer ? &*base_.tokenizer : nullptr;
    eval_data_ = load_dataset(
        dataset_options(settings_.data, settings_.data.eval_dataset, template_, base_.config),
        tokenizer);
    report_data(run_, *eval_data_, "eval");
  }
}

void TrainRun::plan_steps() {
  // Steps from the stages, else --max_steps, else the epochs over the data.
  const StageSpelling spelling{
      .steps = settings_.stage.steps,
      .lr_factors = settings_.stage.lr_factors,
      .targets = settings_.stage.targets,
      .data = settings_.stage.data == "curriculum" ? "" : settings_.stage.data};
  if (!settings_.stage.steps.empty()) {
    total_steps_ = parse_stage_steps(settings_.stage.steps).back();
    if (settings_.optim.max_steps > 0 && settings_.optim.max_steps != total_steps_) {
      throw Error(ExitCode::kUsage,
                  fmt::format("--max_steps {} contradicts --stage_steps \"{}\", which ends at {}",
                              settings_.optim.max_steps, settings_.stage.steps, total_steps_),
                  "leave one of them out");
    }
  } else {
    total_steps_ = settings_.optim.max_steps;
  }
  stages_ = parse_stages(spelling, std::max<std::int64_t>(total_steps_, 1));
  data_->plan(settings_, stages_);
  if (total_steps_ == 0) {
    total_steps_ = static_cast<std::int64_t>(
        std::ceil(settings_.optim.epochs * static_cast<double>(data_->steps_per_epoch())));
    stages_.back().last_step = total_steps_;
  }
  const auto kind = parse_schedule(settings_.optim.scheduler);
  if (!kind) {
    throw Error(ExitCode::kUsage,
                "--lr_scheduler_type " + settings_.optim.scheduler + " is unknown");
  }
  schedule_ = {
      .kind = *kind,
      .warmup_steps = settings_.optim.warmup_steps > 0
                          ? settings_.optim.warmup_steps
                          : static_cast<std::int64_t>(std::ceil(settings_.optim.warmup_ratio *
                                                                static_cast<double>(total_steps_))),
      .total_steps = total_steps_};
}

MemoryRequest TrainRun::memory_request() const {
  return {.full_parameters = adapter_.full,
          .use_dora = adapter_.lora.use_dora,
          .trainable = adapter_.trainable,
          .tokens = data_->most_tokens(settings_),
          .micro_batches = settings_.optim.accumulation,
          .targets = 0,
          .longest = std::max(data_->longest(), settings_.data.cutoff_len),
          .lora_rank = adapter_.full ? 0 : adapter_.lora.r,
          .dtype = compute_dtype(settings_.model.dtype),
          .recompute = parse_recompute(settings_.memory.activation_checkpointing),
          .streaming = streaming_of(settings_.memory.weight_streaming),
          .threads = run_.threads()};
}

void TrainRun::check_memory() {
  if (settings_.memory.weight_streaming == "always" && adapter_.full) {
    throw Error(ExitCode::kUsage,
                "--weight_streaming always contradicts --peft_method full, which holds every "
                "weight in memory",
                "leave one of them out");
  }
  const MemoryRequest request = memory_request();
  memory_ = fit_memory(base_.config, request, base_size(base_.config, *checkpoint_),
                       static_cast<std::int64_t>(resident_bytes()),
                       allowed_memory(settings_.memory.memory_limit));
  if (memory_.streams()) {
    run_.info(fmt::format("the base ({}) is read from disk layer by layer, {} of it at a time",
                          format_bytes(memory_.base_bytes), format_bytes(memory_.window)));
  }
  if (memory_.recompute != request.recompute) {
    run_.warn(fmt::format(
        "memory is short for --activation_checkpointing {}: {} is used (same result, more time)",
        settings_.memory.activation_checkpointing, recompute_name(memory_.recompute)));
  }
}

RunIdentity TrainRun::identity() const {
  RunIdentity id;
  id.model_digest = model_digest(base_.folder, *checkpoint_);
  id.dataset_digest = data_->digest();
  id.settings = result_settings(settings_, adapter_, template_);
  return id;
}

StepEstimate TrainRun::estimate() const {
  Device device = Device::cpu(run_.threads());
  return estimate_step(base_.config, memory_request(), memory_,
                       base_size(base_.config, *checkpoint_), *checkpoint_, device);
}

Plan TrainRun::plan() const {
  const std::int64_t element = settings_.model.dtype == "bf16" ? 2 : 4;
  return {.config = base_.config,
          .adapter = adapter_,
          .method = describe(settings_.adapter, adapter_),
          .stages = stages_,
          .data = *data_,
          .memory = memory_,
          .selection = selection_settings_ ? std::optional(plan_selection(*selection_settings_,
                                                                          adapter_, total_steps_))
                                           : std::nullopt,
          .step = estimate(),
          .available = allowed_memory(settings_.memory.memory_limit),
          .activations = settings_.memory.activation_checkpointing == "selective"
                             ? activation_groups(base_.config, adapter_.full ? 0 : adapter_.lora.r,
                                                 data_->longest())
                             : std::vector<ActivationGroup>{},
          .element_bytes = element,
          .activation_bytes = element * data_->most_tokens(settings_)};
}

void TrainRun::load_model() {
  const std::int64_t positions = std::max(data_->longest(), settings_.data.cutoff_len);
  model_ = DeepSeekModel::load(base_.config, std::move(*checkpoint_),
                               compute_dtype(settings_.model.dtype), positions);
  if (adapter_.full) {
    model_->make_all_trainable();
  } else {
    model_->add_lora(adapter_.lora, adapter_.targets);
    init_lora(model_->parameters(), adapter_.lora.init,
              static_cast<std::uint64_t>(settings_.optim.seed));
    model_->reset_magnitudes();
  }
  model_->allocate_gradients();
  device_ = std::make_unique<Device>(Device::cpu(run_.threads()));
  optimizer_ = std::make_unique<Optimizer>(optimizer_config(settings_, adapter_.lora_plus),
                                           model_->parameters());
  if (memory_.streams()) {
    model_->stream_weights(static_cast<std::size_t>(memory_.window));
  }
  trainer_ = std::make_unique<Trainer>(*model_, *optimizer_, *device_,
                                       static_cast<std::uint64_t>(settings_.optim.seed),
                                       memory_.recompute, memory_.streams());
  if (selection_settings_) {
    selection_ = std::make_unique<LayerSelection>(*selection_settings_, model_->parameters());
    trainer_->select_layers(selection_.get());
  }
}

void TrainRun::resume_or_start() {
  position_.total_steps = total_steps_;
  if (!settings_.state.resume.empty()) {
    const auto folder = resume_folder(settings_.state, run_);
    if (!settings_.model.adapter.empty()) {
      run_.warn("--resume_from_checkpoint wins over --adapter: " + folder.string());
    }
    position_ = load_checkpoint(folder, identity_, *optimizer_);
    position_.total_steps = total_steps_;
    // A run that was killed between its last checkpoint and its product has only that to write.
    if (position_.step > total_steps_ ||
        (position_.step == total_steps_ &&
         has_product(settings_.state.output_dir, folder, adapter_))) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{} is at step {} of {}: this run is finished", folder.string(),
                              position_.step, total_steps_),
                  "raise --max_steps to go on, or start a new run from its weights with --adapter");
    }
    load_weights(folder, adapter_, *model_);
    if (selection_) selection_->set_importance(position_.importance);
    curve_ = TrainingCurve::read(std::filesystem::path(settings_.state.output_dir), position_.step);
    stage_ = static_cast<std::size_t>(position_.stage - 1);
    data_->order(stage_).seek(position_.epoch, position_.row);
    last_saved_ = position_.step;
    run_.info(fmt::format("resuming at step {} of {}, stage {}", position_.step, total_steps_,
                          position_.stage));
  } else if (!settings_.model.adapter.empty()) {
    load_weights(settings_.model.adapter, adapter_, *model_);
  }
  begin_stage(stage_);
}

// What a stage trains and where its data stands; the optimizer keeps its moments unless told.
void TrainRun::begin_stage(std::size_t stage) {
  stage_ = stage;
  apply_stage_targets(stages_[stage].targets, adapter_, base_.config, *model_);
  if (stage > 0 && settings_.stage.reset_optimizer && position_.step < stages_[stage].first_step) {
    optimizer_->reset();
  }
  run_.event("deepseek/stage/1", {{"stage", stage + 1},
                                  {"first_step", stages_[stage].first_step},
                                  {"last_step", stages_[stage].last_step},
                                  {"lr_factor", stages_[stage].lr_factor},
                                  {"targets", stages_[stage].targets},
                                  {"data", stages_[stage].data}});
}

void TrainRun::train() {
  started_ = Clock::now();
  first_step_ = position_.step;
  const double uniform_loss = std::log(static_cast<double>(base_.config.vocab_size));
  while (position_.step < total_steps_) {
    const auto step_start = Clock::now();
    if (position_.step >= stages_[stage_].last_step) {
      const std::size_t next = stage_ + 1;
      const bool own_data = data_->order_index(next) != data_->order_index(stage_);
      if (own_data) data_->order(next).seek(0, 0);
      begin_stage(next);
    }
    const Window window = data_->order(stage_).next();
    const double factor = schedule_.factor(position_.step) * stages_[stage_].lr_factor;
    const UpdateReport report = trainer_->update(window, position_.step, factor);
    if (!report.divergence.empty()) {
      run_.progress_clear();
      const std::string weight = model_->find_non_finite_weight();
      if (!weight.empty()) {
        throw Error(ExitCode::kBadInput, weight + "; " + report.divergence,
                    "the base checkpoint is damaged: download or convert it again");
      }
      throw Error(ExitCode::kFindings, report.divergence + "; training diverged",
                  last_saved_ >= 0
                      ? fmt::format("the last good state is checkpoint-{}; lower --learning_rate",
                                    last_saved_)
                      : "nothing was saved; lower --learning_rate or check the base model");
    }
    ++position_.step;
    const DataOrder& order = data_->order(stage_);
    position_.epoch = order.epoch();
    position_.row = order.row();
    position_.stage = static_cast<std::int64_t>(stage_) + 1;
    const double seconds = seconds_since(step_start);
    trained_seconds_ += seconds;
    trained_tokens_ += report.tokens;
    if (position_.step == 1 && report.mean_loss() > 1.2 * uniform_loss) {
      run_.warn(
          fmt::format("the first loss {:.3f} is far above ln(vocabulary) = {:.3f}: the base model "
                      "does worse than "
                      "guessing; a broken conversion or the wrong tokenizer does this",
                      report.mean_loss(), uniform_loss));
    }
    step_event(report, seconds);

    const bool stage_end = position_.step == stages_[stage_].last_step;
    const bool due =
        settings_.state.save_steps > 0 && position_.step % settings_.state.save_steps == 0;
    const bool eval_due = settings_.state.eval_steps > 0
                              ? position_.step % settings_.state.eval_steps == 0
                              : stage_end;
    if (eval_data_ && (eval_due || position_.step == total_steps_)) evaluate();
    if (due || stage_end) checkpoint();
    if (stop_requested() && position_.step < total_steps_) {
      if (last_saved_ != position_.step) checkpoint();
      run_.progress_clear();
      throw Error(
          ExitCode::kInterrupted,
          fmt::format("stopped at step {} of {}; the state is in {}", position_.step, total_steps_,
                      (std::filesystem::path(settings_.state.output_dir) /
                       fmt::format("checkpoint-{}", position_.step))
                          .string()),
          "go on with --resume_from_checkpoint latest");
    }
  }
  run_.progress_clear();
}

void TrainRun::step_event(const UpdateReport& report, double seconds) {
  const double loss = report.mean_loss();
  position_.loss_ema = position_.step == 1 ? loss : 0.9 * position_.loss_ema + 0.1 * loss;
  curve_.add(
      {.step = position_.step, .loss = loss, .lr_a = report.step.lr_a, .lr_b = report.step.lr_b},
      report.targets);
  const double rate = seconds > 0.0 ? static_cast<double>(report.tokens) / seconds : 0.0;
  nlohmann::json event = {{"step", position_.step},
                          {"stage", position_.stage},
                          {"loss", loss},
                          {"lr_a", report.step.lr_a},
                          {"lr_b", report.step.lr_b},
                          {"grad_norm", report.step.grad_norm},
                          {"tokens", report.tokens},
                          {"target_tokens", report.targets},
                          {"tokens_per_second", rate},
                          {"peak_rss_bytes", peak_resident_bytes()}};
  if (selection_) {
    event["computed_layers"] = selection_->computed();
    event["skipped_layers"] = selection_->skipped();
    event["activation_bytes"] = report.activation_bytes;
    selective_use_.add(*selection_, report.activation_bytes, seconds);
  }
  run_.event("deepseek/train-step/1", std::move(event));
  const double pace = static_cast<double>(trained_tokens_) / std::max(trained_seconds_, 1e-9);
  const auto finished = static_cast<double>(position_.step - first_step_);
  const double eta = seconds_since(started_) / std::max(finished, 1.0) *
                     static_cast<double>(total_steps_ - position_.step);
  run_.progress(fmt::format("stage {}/{} step {}/{} loss {:.4f} {:.0f} tokens/s ETA {}",
                            position_.stage, stages_.size(), position_.step, total_steps_,
                            position_.loss_ema, pace, format_duration(eta)),
                static_cast<double>(position_.step) / static_cast<double>(total_steps_));
}

void TrainRun::evaluate() {
  LossSums sums;
  for (const TokenBatch& batch :
       eval_batches(eval_data_->examples, data_->most_tokens(settings_))) {
    const LossSums part = trainer_->evaluate(batch);
    sums.loss += part.loss;
    sums.targets += part.targets;
  }
  const double mean = sums.loss / static_cast<double>(std::max<std::int64_t>(sums.targets, 1));
  curve_.eval_loss = mean;
  run_.event("deepseek/eval/1", {{"step", position_.step},
                                 {"metric", "loss"},
                                 {"n", eval_data_->examples.size()},
                                 {"value", mean},
                                 {"loss", mean},
                                 {"perplexity", std::exp(mean)},
                                 {"target_tokens", sums.targets}});
  run_.progress_clear();
  run_.info(fmt::format("step {}: held-out loss {:.4f}", position_.step, mean));
}

void TrainRun::checkpoint() {
  if (selection_) position_.importance = selection_->importance();
  const auto folder = save_checkpoint(
      settings_.state.output_dir, position_, identity_, *optimizer_,
      [this](const std::filesystem::path& into) { save_weights(into, adapter_, base_, *model_); },
      settings_.state.save_total_limit);
  last_saved_ = position_.step;
  run_.event("deepseek/checkpoint/1",
             {{"step", position_.step}, {"stage", position_.stage}, {"path", folder.string()}});
}

void TrainRun::finish() {
  const std::filesystem::path output = settings_.state.output_dir;
  write_run_files(output, settings_, run_, base_, adapter_, *data_, stages_, curve_, position_);
  save_weights(output, adapter_, base_, *model_);
  const double seconds = seconds_since(started_);
  nlohmann::json product = {{"steps", position_.step},
                            {"stages", stages_.size()},
                            {"final_loss", curve_.last_loss()},
                            {"tokens_per_second", static_cast<double>(trained_tokens_) /
                                                      std::max(trained_seconds_, 1e-9)},
                            {"peak_rss_bytes", peak_resident_bytes()},
                            {"adapter", output.string()},
                            {"seconds", seconds}};
  if (selection_) product["selective_computation"] = selective_use_.json();
  run_.product(
      fmt::format("trained {} steps in {}: loss {:.4f} -> {:.4f}{}\n{}{}: {}\n", position_.step,
                  format_duration(seconds), curve_.first_loss(), curve_.last_loss(),
                  curve_.eval_loss >= 0.0 ? fmt::format(", held-out {:.4f}", curve_.eval_loss) : "",
                  selective_use_.text(), adapter_.full ? "model" : "adapter", output.string()),
      product);
}

}  // namespace

void run_train(const TrainSettings& settings, cli::Run& run) { TrainRun(settings, run).execute(); }

}  // namespace ds::finetune
