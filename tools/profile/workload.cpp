#include "tools/profile/workload.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/rng.h"
#include "libcore/base/system.h"
#include "libcore/cli/environment.h"
#include "libcore/text/tokenizer.h"
#include "libcore/train/lora_init.h"
#include "libcore/train/memory_plan.h"

namespace ds::profile {

namespace {

constexpr std::uint64_t kSeed = 42;

LoraConfig lora_config(const WorkSettings& settings, const ModelConfig& config) {
  LoraConfig lora;
  lora.r = settings.lora_r > 0 ? settings.lora_r : 8;
  lora.alpha = 2.0 * static_cast<double>(lora.r);
  set_targets(lora, settings.lora_target.empty() ? "all" : settings.lora_target, config);
  return lora;
}

// The tokens of --input; none for an empty text.
std::vector<std::int32_t> encode(const std::string& input, const std::filesystem::path& folder) {
  if (input.empty()) return {};
  std::optional<Tokenizer> tokenizer;
  try {
    tokenizer = Tokenizer::load(folder);
  } catch (const Error& error) {
    throw Error(ExitCode::kBadInput, std::string("--input: ") + error.what(),
                "put the model's tokenizer.json into the folder, or use --seq_len N");
  }
  std::vector<std::int32_t> ids = tokenizer->encode(input);
  if (ids.size() < 2) {
    throw Error(ExitCode::kUsage,
                fmt::format("--input {} gives {} tokens, needed are at least 2", quote_text(input),
                            ids.size()),
                "give a longer text, or --seq_len N");
  }
  return ids;
}

}  // namespace

Method resolve_method(const WorkSettings& settings, bool train, bool analytical) {
  if (settings.peft_method == "lora") return Method::kLora;
  if (settings.peft_method == "full") return train ? Method::kFull : Method::kNone;
  if (settings.lora_r > 0 || !settings.lora_target.empty()) return Method::kLora;
  if (!train) return Method::kNone;
  return analytical ? Method::kFull : Method::kLora;
}

std::vector<LoraTarget> lora_targets(const WorkSettings& settings, Method method,
                                     const ModelConfig& config) {
  if (method != Method::kLora) return {};
  return match_targets(lora_config(settings, config), config);
}

std::filesystem::path find_model_folder(const std::string& model) {
  return find_model(model, cli::model_search_paths());
}

Workload::Workload(const WorkSettings& settings, const std::filesystem::path& folder,
                   const ModelConfig& config, const std::string& input, bool train, Device& device)
    : config_(config),
      device_(device),
      train_(train),
      method_(resolve_method(settings, train, false)),
      recompute_(parse_recompute(settings.activation_checkpointing)),
      dtype_(settings.dtype == "bf16" ? DType::kBF16 : DType::kF32) {
  if (method_ == Method::kLora) lora_ = lora_config(settings, config);
  targets_ = lora_targets(settings, method_, config);
  for (const LoraTarget& target : targets_) {
    trainable_ += target.rank * (target.module.in + target.module.out);
  }
  if (method_ == Method::kFull) trainable_ = count_parameters(config).total();
  const std::vector<std::int32_t> ids = encode(input, folder);
  longest_ = ids.empty() ? settings.seq_len : static_cast<std::int64_t>(ids.size());
  window_.tokens = longest_ * settings.batch;
  Checkpoint checkpoint = Checkpoint::open(folder);
  base_bytes_ = static_cast<std::int64_t>(checkpoint.total_bytes());
  check_memory();
  make_window(settings, ids);
  model_ = DeepSeekModel::load(config, std::move(checkpoint), dtype_, longest_);
  if (method_ == Method::kLora) {
    model_->add_lora(lora_, targets_);
    init_lora(model_->parameters(), lora_.init, kSeed);
  }
  if (train_) {
    if (method_ == Method::kFull) model_->make_all_trainable();
    model_->allocate_gradients();
  }
  optimizer_ = std::make_unique<Optimizer>(OptimizerConfig{}, model_->parameters());
  trainer_ = std::make_unique<Trainer>(*model_, *optimizer_, device_, kSeed, recompute_);
}

void Workload::make_window(const WorkSettings& settings, const std::vector<std::int32_t>& ids) {
  const Rng rng(kSeed, 0);
  std::uint64_t draw = 0;
  TokenBatch batch;
  for (std::int64_t row = 0; row < settings.batch; ++row) {
    Example example;
    example.ids = ids;
    for (std::int64_t i = 0; ids.empty() && i < settings.seq_len; ++i) {
      example.ids.push_back(static_cast<std::int32_t>(
          rng.bits(draw++) % static_cast<std::uint64_t>(config_.vocab_size)));
    }
    example.labels = example.ids;
    example.line = row + 1;
    append_segment(batch, example);
  }
  window_.targets = batch.target_count();
  window_.tokens = batch.tokens();
  window_.batches.push_back(std::move(batch));
}

void Workload::check_memory() const {
  const MemoryRequest request{.full_parameters = method_ == Method::kFull,
                              .trainable = trainable_,
                              .tokens = window_.tokens,
                              .targets = window_.tokens,
                              .longest = longest_,
                              .lora_rank = method_ == Method::kLora ? lora_.r : 0,
                              .dtype = dtype_,
                              .recompute = train_ ? recompute_ : Recompute::kFull,
                              .threads = device_.threads()};
  const std::int64_t needed = plan_memory(config_, request).total();
  const auto available = static_cast<std::int64_t>(memory_info().available);
  if (needed <= available) return;
  throw Error(ExitCode::kResources,
              fmt::format("a step of {} tokens needs {} of memory, {} are available",
                          window_.tokens, format_bytes(static_cast<std::uint64_t>(needed)),
                          format_bytes(static_cast<std::uint64_t>(available))),
              "lower --batch or --seq_len, or use --activation_checkpointing full");
}

void Workload::step() {
  if (train_) {
    const UpdateReport report = trainer_->update(window_, steps_++, 1.0);
    if (report.divergence.empty()) return;
    const std::string weight = model_->find_non_finite_weight();
    throw Error(ExitCode::kBadInput, weight.empty() ? report.divergence : weight,
                "the base checkpoint is damaged: download or convert it again");
  }
  for (const TokenBatch& batch : window_.batches) trainer_->evaluate(batch);
}

MemoryUse Workload::memory() const {
  MemoryUse use;
  use.base = base_bytes_;
  for (const Parameter* parameter : model_->parameters()) {
    use.adapters += parameter->value.bytes();
    if (parameter->grad) use.gradients += parameter->grad.bytes();
  }
  for (const Optimizer::State& state : optimizer_->states()) {
    if (state.exp_avg) use.optimizer += state.exp_avg.bytes() + state.exp_avg_sq.bytes();
  }
  use.activations = static_cast<std::int64_t>(trainer_->saved().peak_bytes());
  use.workspace = static_cast<std::int64_t>(trainer_->scratch().peak_bytes());
  use.activations_by_name = trainer_->saved().peak_by_name();
  use.workspace_by_name = trainer_->scratch().peak_by_name();
  use.kernel_scratch = static_cast<std::int64_t>(device_.scratch_bytes());
  return use;
}

}  // namespace ds::profile
