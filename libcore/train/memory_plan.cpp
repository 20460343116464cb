#include "libcore/train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/error.h"
#include "libcore/base/format.h"

namespace ds {

namespace {

// Elements a token keeps in one block until its backward (the structs ...Saved of libcore/nn).
std::int64_t saved_elements(const ModelConfig& c, std::int64_t layer, std::int64_t rank) {
  const std::int64_t heads = c.num_attention_heads;
  std::int64_t n = 3 * c.hidden_size;                // xn, h_mid, mlp_xn
  n += 2 * c.q_lora_rank;                            // q_a, q_an
  n += heads * c.q_head_dim();                       // q
  n += 2 * c.kv_lora_rank + c.qk_rope_head_dim;      // kv_a, latent
  n += heads * (c.qk_nope_head_dim + c.v_head_dim);  // kv
  n += heads * c.v_head_dim + heads;                 // o, lse
  n += 5 * rank;                                     // adapters' p
  if (c.is_moe_layer(layer)) {
    n += 2 * c.n_routed_experts;  // scores, logits
    n += c.num_experts_per_tok * (2 * c.moe_intermediate_size + 3 * rank + 4);
    n += 2 * c.n_shared_experts * c.moe_intermediate_size + 3 * rank;
  } else {
    n += 2 * c.intermediate_size + 3 * rank;
  }
  return n;
}

// Elements a token needs in scratch at the worst moment of a block's backward.
std::int64_t scratch_elements(const ModelConfig& c, std::int64_t layer) {
  const std::int64_t heads = c.num_attention_heads;
  const std::int64_t attention = heads * (c.q_head_dim() + c.qk_nope_head_dim + 2 * c.v_head_dim) +
                                 2 * c.kv_lora_rank + c.qk_rope_head_dim + 2 * c.q_lora_rank;
  std::int64_t mlp = 2 * c.intermediate_size;
  if (c.is_moe_layer(layer)) {
    mlp = c.num_experts_per_tok * (2 * c.hidden_size + 2 * c.moe_intermediate_size) +
          2 * c.n_shared_experts * c.moe_intermediate_size + 2 * c.n_routed_experts;
  }
  return 2 * c.hidden_size + std::max(attention, mlp);
}

}  // namespace

MemoryPlan plan_memory(const ModelConfig& config, const MemoryRequest& request,
                       std::int64_t base_bytes) {
  MemoryPlan plan;
  plan.base_bytes = base_bytes;
  const std::int64_t element = kernels::dtype_size(request.dtype);
  const std::int64_t statistic = kernels::dtype_size(kernels::statistics_dtype(request.dtype));
  plan.parts["adapters"] = request.trainable * statistic;
  plan.parts["gradients"] = request.trainable * statistic;
  plan.parts["optimizer"] = 2 * request.trainable * statistic;

  std::int64_t saved = (config.num_hidden_layers + 1) * config.hidden_size;
  std::int64_t largest = 0;
  std::int64_t scratch = 0;
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::int64_t one = saved_elements(config, layer, request.lora_rank);
    largest = std::max(largest, one);
    if (request.recompute == Recompute::kNone) saved += one;
    scratch = std::max(scratch, scratch_elements(config, layer));
  }
  if (request.recompute == Recompute::kFull) saved += largest;
  plan.parts["activations"] = request.tokens * saved * element;

  const std::int64_t rows =
      std::min(request.targets > 0 ? request.targets : request.tokens,
               std::max<std::int64_t>(16, (std::int64_t{16} << 20) / config.vocab_size));
  const std::int64_t head =
      rows * config.vocab_size * statistic +
      2 * (request.targets > 0 ? request.targets : request.tokens) * config.hidden_size * element;
  constexpr std::int64_t kThreadScratch = std::int64_t{8} << 20;
  plan.parts["workspace"] =
      std::max(request.tokens * scratch * element, head) + request.threads * kThreadScratch;
  plan.parts["tables"] = request.longest * config.qk_rope_head_dim * statistic;
  return plan;
}

void require_memory(const ModelConfig& config, const MemoryRequest& request, const MemoryPlan& plan,
                    std::int64_t available) {
  if (plan.total() <= available) return;
  const auto largest =
      std::max_element(plan.parts.begin(), plan.parts.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  std::string hint;
  const auto fits = [&](MemoryRequest changed) {
    return plan_memory(config, changed, plan.base_bytes).total() <= available;
  };
  MemoryRequest checkpointed = request;
  checkpointed.recompute = Recompute::kFull;
  MemoryRequest shorter = checkpointed;
  while (shorter.tokens > 64 && !fits(shorter)) {
    shorter.tokens /= 2;
    shorter.targets /= 2;
  }
  if (request.recompute != Recompute::kFull && fits(checkpointed)) {
    hint = fmt::format("--activation_checkpointing full needs {} and fits",
                       format_bytes(plan_memory(config, checkpointed, 0).total()));
  } else if (fits(shorter)) {
    hint = fmt::format(
        "with --activation_checkpointing full, {} tokens a micro-batch instead of {} "
        "would fit (smaller --per_device_train_batch_size or --cutoff_len)",
        shorter.tokens, request.tokens);
  } else if (request.full_parameters) {
    hint = "full-parameter training keeps 16 bytes a parameter; use --peft_method lora";
  } else {
    hint = "use a smaller --lora_r or fewer --lora_target modules";
  }
  throw Error(
      ExitCode::kResources,
      fmt::format("this run needs {} of memory beside the mapped base ({}), {} are available; "
                  "the largest part is {} with {}",
                  format_bytes(plan.total()), format_bytes(plan.base_bytes),
                  format_bytes(available), largest->first, format_bytes(largest->second)),
      hint);
}

}  // namespace ds
