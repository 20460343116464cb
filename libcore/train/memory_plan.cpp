#include "libcore/train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "libcore/base/error.h"
#include "libcore/base/format.h"

namespace ds {

namespace {

// Of one layer (the structs ...Saved of libcore/nn), in a fixed order.
std::vector<ActivationGroup> layer_groups(const ModelConfig& c, std::int64_t layer,
                                          std::int64_t rank, std::int64_t length) {
  const std::int64_t heads = c.num_attention_heads;
  const std::int64_t hidden = c.hidden_size;
  const bool q_lora = c.q_lora_rank > 0;
  const auto product = [](std::int64_t in, std::int64_t out) {
    return 2.0 * static_cast<double>(in) * static_cast<double>(out);
  };
  const std::int64_t norms = 2 * hidden + c.q_lora_rank + c.kv_lora_rank;
  const std::int64_t queries = heads * c.q_head_dim();
  const std::int64_t keys = heads * (c.qk_nope_head_dim + c.v_head_dim);
  const std::int64_t latents = c.q_lora_rank + c.kv_lora_rank + c.qk_rope_head_dim;
  const std::int64_t o = heads * c.v_head_dim;
  std::vector<ActivationGroup> groups{
      {"norm outputs", norms, 5.0 * static_cast<double>(norms), true},
      {"keys, values", keys, product(c.kv_lora_rank, keys), true},
      {"queries", queries, product(q_lora ? c.q_lora_rank : hidden, queries), q_lora},
      {"latents", latents, product(hidden, latents), false},
      {"attention", o + heads, static_cast<double>(length) * static_cast<double>(queries + o),
       false},
      {"residual", hidden, product(o, hidden), false}};
  std::int64_t wide = 2 * c.intermediate_size;
  std::int64_t adapters = 5 * rank + 3 * rank;
  if (c.is_moe_layer(layer)) {
    const std::int64_t k = c.num_experts_per_tok;
    const std::int64_t routed = k * 2 * c.moe_intermediate_size;
    groups.push_back({"routed gate, up", routed, product(hidden, routed), false});
    groups.push_back(
        {"routing", c.n_routed_experts + 4 * k, product(hidden, c.n_routed_experts), false});
    wide = 2 * c.n_shared_experts * c.moe_intermediate_size;
    adapters += 3 * rank * k;
  }
  groups.push_back({"dense gate, up", wide, product(hidden, wide), false});
  if (rank > 0) groups.push_back({"adapters", adapters, product(hidden, adapters), false});
  return groups;
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

std::vector<ActivationGroup> activation_groups(const ModelConfig& config, std::int64_t lora_rank,
                                               std::int64_t length) {
  std::vector<ActivationGroup> all;
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    for (const ActivationGroup& group : layer_groups(config, layer, lora_rank, length)) {
      const auto same = std::find_if(all.begin(), all.end(), [&](const ActivationGroup& other) {
        return other.name == group.name;
      });
      if (same == all.end()) {
        all.push_back(group);
      } else {
        same->elements += group.elements;
        same->flops += group.flops;
      }
    }
  }
  std::stable_sort(all.begin(), all.end(), [](const ActivationGroup& a, const ActivationGroup& b) {
    return static_cast<double>(a.elements) * b.flops > static_cast<double>(b.elements) * a.flops;
  });
  return all;
}

MemoryPlan plan_memory(const ModelConfig& config, const MemoryRequest& request,
                       std::int64_t base_bytes) {
  MemoryPlan plan;
  plan.base_bytes = base_bytes;
  const std::int64_t element = kernels::dtype_size(request.dtype);
  const std::int64_t statistic = kernels::dtype_size(kernels::statistics_dtype(request.dtype));
  plan.parts["adapters"] = request.trainable * statistic;
  plan.parts["gradients"] = request.trainable * statistic;
  plan.parts["optimizer"] = 2 * request.trainable * statistic;

  // The residual stream at every border of layers, what the layers keep, and what the layer at work
  // has made again.
  std::int64_t saved = (config.num_hidden_layers + 1) * config.hidden_size;
  std::int64_t remade = 0;
  std::int64_t dropped = 0;
  std::int64_t scratch = 0;
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    std::int64_t again = 0;
    std::int64_t cheap = 0;
    for (const ActivationGroup& group :
         layer_groups(config, layer, request.lora_rank, request.longest)) {
      if (group.dropped_selective) cheap += group.elements;
      const bool drop = request.recompute == Recompute::kFull ||
                        (request.recompute == Recompute::kSelective && group.dropped_selective);
      (drop ? again : saved) += group.elements;
    }
    remade = std::max(remade, again);
    dropped = std::max(dropped, cheap);
    scratch = std::max(scratch, scratch_elements(config, layer));
  }
  saved += remade;
  // Under selective recomputation these lie in scratch while a block runs forward.
  if (request.recompute == Recompute::kSelective) scratch += dropped;
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
  MemoryRequest selective = request;
  selective.recompute = Recompute::kSelective;
  MemoryRequest checkpointed = request;
  checkpointed.recompute = Recompute::kFull;
  MemoryRequest shorter = checkpointed;
  while (shorter.tokens > 64 && !fits(shorter)) {
    shorter.tokens /= 2;
    shorter.targets /= 2;
  }
  if (request.recompute == Recompute::kNone && fits(selective)) {
    hint = fmt::format("--activation_checkpointing selective needs {} and fits",
                       format_bytes(plan_memory(config, selective, 0).total()));
  } else if (request.recompute != Recompute::kFull && fits(checkpointed)) {
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
