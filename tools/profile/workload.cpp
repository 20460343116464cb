#include "tools/profile/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/rng.h"
#include "libcore/base/system.h"
#include "libcore/cli/environment.h"
#include "libcore/text/tokenizer.h"
#include "libcore/train/lora_init.h"
#include "libcore/train/memory_plan.h"
#include "tools/profile/cost_model.h"

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

// The row of the cost table that a tensor of a checkpoint belongs to; empty: none (MTP layers).
std::string part_of(std::string_view tensor, const ModelConfig& config) {
  constexpr std::string_view kLayers = "model.layers.";
  if (tensor.starts_with("model.embed_tokens.")) return "embedding";
  if (tensor.starts_with("lm_head.") || tensor.starts_with("model.norm.")) return "head";
  if (!tensor.starts_with(kLayers)) return "";
  tensor.remove_prefix(kLayers.size());
  std::int64_t layer = 0;
  const auto* const end = tensor.data() + tensor.size();
  const auto parsed = std::from_chars(tensor.data(), end, layer);
  if (parsed.ec != std::errc() || layer >= config.num_hidden_layers) return "";
  const std::string_view rest(parsed.ptr, static_cast<std::size_t>(end - parsed.ptr));
  const bool attention = rest.starts_with(".self_attn.") || rest.starts_with(".input_layernorm.");
  return fmt::format("layers.{}.{}", layer, attention ? "attention" : "mlp");
}

std::map<std::string, std::int64_t> bytes_by_part(const Checkpoint& checkpoint,
                                                  const ModelConfig& config) {
  std::map<std::string, std::int64_t> bytes;
  for (const Checkpoint::Entry& entry : checkpoint.entries()) {
    const std::string part = part_of(entry.tensor->name, config);
    if (!part.empty()) bytes[part] += static_cast<std::int64_t>(entry.tensor->bytes());
  }
  return bytes;
}

}  // namespace

Mode parse_mode(const std::string& spelling) {
  if (spelling == "train") return Mode::kTrain;
  return spelling == "decode" ? Mode::kDecode : Mode::kInfer;
}

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
                   const ModelConfig& config, const std::string& input, Mode mode, Device& device)
    : config_(config),
      device_(device),
      mode_(mode),
      method_(resolve_method(settings, mode == Mode::kTrain, false)),
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
  tokens_ = mode == Mode::kDecode ? settings.batch : longest_ * settings.batch;
  Checkpoint checkpoint = Checkpoint::open(folder);
  base_bytes_ = static_cast<std::int64_t>(checkpoint.total_bytes());
  part_bytes_ = bytes_by_part(checkpoint, config);
  check_memory(settings.batch);
  make_window(settings, ids);
  model_ = DeepSeekModel::load(config, std::move(checkpoint), dtype_, longest_);
  if (method_ == Method::kLora) {
    model_->add_lora(lora_, targets_);
    init_lora(model_->parameters(), lora_.init, kSeed);
  }
  if (mode == Mode::kDecode) {
    make_context(settings.batch);
    return;
  }
  if (mode == Mode::kTrain) {
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
  // Of kDecode one row is the context of all.
  const std::int64_t rows = mode_ == Mode::kDecode ? 1 : settings.batch;
  for (std::int64_t row = 0; row < rows; ++row) {
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

void Workload::make_context(std::int64_t batch) {
  const std::vector<std::int32_t>& row = window_.batches.front().ids;
  Example context{.ids = {row.begin(), row.end() - 1}};
  context.labels.assign(context.ids.size(), kNoTarget);
  TokenBatch prompt;
  append_segment(prompt, context);
  // Arenas of its own: what the context needed is given back.
  Arena saved("activations");
  Arena scratch("workspace");
  Exec exec{.device = device_, .saved = saved, .scratch = scratch, .dtype = dtype_};
  logits_ = Tensor(exec.statistics(), {batch, config_.vocab_size});
  sequences_.reserve(static_cast<std::size_t>(batch));
  Sequence* const first = &sequences_.emplace_back(config_, longest_, dtype_);
  model_->prefill(exec, prompt, {&first, 1}, logits_.view().slice_rows(0, 1));
  for (std::int64_t i = 1; i < batch; ++i) sequences_.push_back(first->branch(1));
  const Rng rng(kSeed, 1);
  for (std::size_t i = 0; i < sequences_.size(); ++i) {
    sequence_pointers_.push_back(&sequences_[i]);
    // The first goes on as the row does; different tokens choose different experts.
    next_.push_back(i == 0 ? row.back()
                           : static_cast<std::int32_t>(
                                 rng.bits(i) % static_cast<std::uint64_t>(config_.vocab_size)));
  }
}

std::int64_t Workload::cache_bytes(std::int64_t batch) const {
  const char* const dtype = dtype_ == DType::kBF16 ? "bf16" : "f32";
  return batch * longest_ * kv_cache_bytes_per_token(config_, dtype, false);
}

void Workload::check_memory(std::int64_t batch) const {
  const bool decode = mode_ == Mode::kDecode;
  const std::int64_t together = decode ? longest_ : tokens_;
  const MemoryRequest request{.full_parameters = method_ == Method::kFull,
                              .trainable = trainable_,
                              .tokens = together,
                              .targets = decode ? batch : tokens_,
                              .longest = longest_,
                              .lora_rank = method_ == Method::kLora ? lora_.r : 0,
                              .dtype = dtype_,
                              .recompute = mode_ == Mode::kTrain ? recompute_ : Recompute::kFull,
                              .threads = device_.threads()};
  const std::int64_t needed =
      plan_memory(config_, request).total() + (decode ? cache_bytes(batch) : 0);
  const auto available = static_cast<std::int64_t>(memory_info().available);
  if (needed <= available) return;
  throw Error(
      ExitCode::kResources,
      decode ? fmt::format("{} sequences of {} tokens need {} of memory with their context, {} "
                           "are available",
                           batch, longest_, format_bytes(static_cast<std::uint64_t>(needed)),
                           format_bytes(static_cast<std::uint64_t>(available)))
             : fmt::format("a step of {} tokens needs {} of memory, {} are available", tokens_,
                           format_bytes(static_cast<std::uint64_t>(needed)),
                           format_bytes(static_cast<std::uint64_t>(available))),
      decode ? "lower --batch or --seq_len"
             : "lower --batch or --seq_len, or use --activation_checkpointing full");
}

void Workload::step() {
  if (mode_ == Mode::kDecode) {
    Exec exec{.device = device_, .saved = saved_, .scratch = scratch_, .dtype = dtype_};
    model_->decode(exec, next_, sequence_pointers_, logits_.view());
    for (Sequence& sequence : sequences_) sequence.shorten(longest_ - 1);
    return;
  }
  if (mode_ == Mode::kTrain) {
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
  if (optimizer_) {
    for (const Optimizer::State& state : optimizer_->states()) {
      if (state.exp_avg) use.optimizer += state.exp_avg.bytes() + state.exp_avg_sq.bytes();
    }
  }
  if (mode_ == Mode::kDecode) use.kv_cache = cache_bytes(tokens_);
  use.activations = static_cast<std::int64_t>(activations().peak_bytes());
  use.workspace = static_cast<std::int64_t>(workspace().peak_bytes());
  use.activations_by_name = activations().peak_by_name();
  use.workspace_by_name = workspace().peak_by_name();
  use.kernel_scratch = static_cast<std::int64_t>(device_.scratch_bytes());
  return use;
}

}  // namespace ds::profile
