#include "libcore/train/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/base/format.h"

namespace ds {

namespace {

constexpr std::string_view kDenseGroup = "dense gate, up";

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
      {"queries", queries, product(q_lora ? c.q_lora_rank : hidden, queries), true},
      {"latents", latents, product(hidden, latents), true},
      {"attention", o + heads, static_cast<double>(length) * static_cast<double>(queries + o),
       drops_attention(c, length)},
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
  groups.push_back({std::string(kDenseGroup), wide, product(hidden, wide), true});
  if (rank > 0) groups.push_back({"adapters", adapters, product(hidden, adapters), false});
  return groups;
}

// Elements a token needs in scratch at the worst moment of a block's forward, beside what selective
// recomputation drops there.
std::int64_t forward_scratch_elements(const ModelConfig& c, std::int64_t layer) {
  if (!c.is_moe_layer(layer)) return c.intermediate_size;
  return c.num_experts_per_tok * (2 * c.hidden_size + c.moe_intermediate_size);
}

// The same of its backward.
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

// Bytes of the lists of tensors that a micro-batch keeps, however many tokens it has.
std::int64_t list_bytes(const ModelConfig& c, Recompute recompute) {
  std::int64_t kept = 0;
  std::int64_t largest = 0;
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const std::int64_t experts = c.is_moe_layer(layer) ? c.n_routed_experts : 0;
    const auto linears = 3 * experts * static_cast<std::int64_t>(sizeof(LinearSaved));
    kept += static_cast<std::int64_t>(sizeof(BlockSaved)) + linears;
    largest = std::max(largest, linears);
  }
  return recompute == Recompute::kFull ? largest : kept;
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

MemoryPlan plan_memory(const ModelConfig& config, const MemoryRequest& request) {
  MemoryPlan plan;
  plan.recompute = request.recompute;
  const std::int64_t element = kernels::dtype_size(request.dtype);
  const std::int64_t statistic = kernels::dtype_size(kernels::statistics_dtype(request.dtype));
  plan.parts["adapters"] = request.trainable * statistic;
  plan.parts["gradients"] = request.trainable * statistic;
  plan.parts["optimizer"] = 2 * request.trainable * statistic;

  // The residual stream at every border of layers, what the layers up to the one at work keep, and
  // what that one has made again.
  std::int64_t kept = config.hidden_size;
  std::int64_t saved = 0;
  std::int64_t scratch = 0;
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    std::int64_t attention = 0;
    std::int64_t mlp = 0;
    kept += config.hidden_size;
    for (const ActivationGroup& group :
         layer_groups(config, layer, request.lora_rank, request.longest)) {
      const bool drop = request.recompute == Recompute::kFull ||
                        (request.recompute == Recompute::kSelective && group.dropped_selective);
      if (!drop) {
        kept += group.elements;
      } else {
        (group.name == kDenseGroup ? mlp : attention) += group.elements;
      }
    }
    if (layer + 1 == config.num_hidden_layers) {
      // It gathers the rows that predict, and attention's outputs of them.
      const bool full = request.recompute == Recompute::kFull;
      const bool selective = request.recompute == Recompute::kSelective;
      const bool again = full || (selective && drops_attention(config, request.longest));
      (full || selective ? attention : kept) += config.hidden_size;
      (again ? attention : kept) += config.num_attention_heads * config.v_head_dim;
    }
    std::int64_t forward = forward_scratch_elements(config, layer);
    if (request.recompute == Recompute::kSelective) {
      // Either half of a block makes its own part again; forward has it in scratch.
      forward = std::max(attention, forward + mlp + config.hidden_size);
      saved = std::max(saved,
                       kept + std::max(attention - config.hidden_size, mlp + config.hidden_size));
    } else {
      saved = std::max(saved, kept + attention + mlp);
    }
    scratch = std::max({scratch, forward, scratch_elements(config, layer)});
  }
  plan.parts["activations"] =
      request.tokens * saved * element + list_bytes(config, request.recompute);

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

BaseSize base_size(const ModelConfig& config, const Checkpoint& checkpoint) {
  BaseSize size;
  std::vector<std::int64_t> layers(static_cast<std::size_t>(config.num_hidden_layers));
  std::int64_t head = 0;
  constexpr std::string_view kLayers = "model.layers.";
  for (const Checkpoint::Entry& entry : checkpoint.entries()) {
    const std::string_view name = entry.tensor->name;
    const auto bytes = static_cast<std::int64_t>(entry.tensor->bytes());
    size.total += bytes;
    if (name == "model.embed_tokens.weight") size.embedding = bytes;
    if (name == "lm_head.weight" ||
        (config.tie_word_embeddings && name == "model.embed_tokens.weight")) {
      head += bytes;
    } else if (name.starts_with(kLayers)) {
      std::size_t layer = 0;
      const std::string_view rest = name.substr(kLayers.size());
      std::from_chars(rest.data(), rest.data() + rest.size(), layer);
      if (layer < layers.size()) layers[layer] += bytes;  // MTP layers come after
    }
  }
  for (const std::int64_t bytes : layers) {
    size.layers += bytes;
    size.largest = std::max(size.largest, bytes);
  }
  size.walked = size.layers + head;
  size.largest = std::max(size.largest, head);
  return size;
}

namespace {

// The least that the stream needs beyond the part in use to read ahead at all.
std::int64_t look_ahead(const BaseSize& base) {
  return std::min(base.largest, std::int64_t{32} << 20);
}

// Code of the program and its libraries that comes into memory with the first step, the matrix
// library's own buffers, and what the heap loses between blocks.
constexpr std::int64_t kLibraries = std::int64_t{64} << 20;

// What the request asks for, and what needs less memory with the same result.
std::vector<Recompute> recomputations(Recompute first) {
  std::vector<Recompute> all;
  for (const Recompute each : {Recompute::kNone, Recompute::kSelective, Recompute::kFull}) {
    if (each >= first) all.push_back(each);
  }
  return all;
}

MemoryPlan with_base(const ModelConfig& config, const MemoryRequest& request, const BaseSize& base,
                     std::int64_t program, bool streams) {
  MemoryPlan plan;
  if (streams) {
    MemoryRequest window = request;
    window.tokens *= window.micro_batches;
    window.targets *= window.micro_batches;
    plan = plan_memory(config, window);
    // The layer at work has one micro-batch at a time; all of them keep the gradient of its output.
    plan.parts["workspace"] = plan_memory(config, request).parts["workspace"] +
                              2 * (request.micro_batches - 1) * request.tokens *
                                  config.hidden_size * kernels::dtype_size(request.dtype);
    plan.parts["activations"] +=
        (request.micro_batches - 1) * list_bytes(config, request.recompute);
    if (request.recompute == Recompute::kFull) {
      const std::int64_t borders =
          (config.num_hidden_layers + 1) * config.hidden_size * kernels::dtype_size(request.dtype);
      plan.parts["activations"] = plan_memory(config, request).parts["activations"] +
                                  (request.micro_batches - 1) * request.tokens * borders;
    }
    plan.window = base.largest + look_ahead(base);
  } else {
    plan = plan_memory(config, request);
  }
  plan.base_bytes = base.total;
  plan.parts["program"] = program + kLibraries;
  // A row of the embedding table takes a page at least.
  constexpr std::int64_t kPage = 4096;
  const std::int64_t rows = std::min(base.embedding, request.tokens * request.micro_batches *
                                                         std::max(kPage, 4 * config.hidden_size));
  // Full-parameter training copies the base; its mapping is let go.
  plan.parts["base"] = streams ? plan.window + rows : request.full_parameters ? 0 : base.total;
  return plan;
}

std::string help_for(const ModelConfig& config, const MemoryRequest& request, const BaseSize& base,
                     std::int64_t program, std::int64_t available) {
  if (request.full_parameters) {
    return "full-parameter training keeps 16 bytes a parameter; use --peft_method lora";
  }
  MemoryRequest smaller = request;
  smaller.recompute = Recompute::kFull;
  const auto fits = [&] {
    return with_base(config, smaller, base, program, true).total() <= available;
  };
  if (request.streaming == Streaming::kNever && fits()) return "--weight_streaming auto would fit";
  if (smaller.micro_batches > 1) {
    smaller.micro_batches = 1;
    if (fits()) return "--gradient_accumulation_steps 1 would fit";
  }
  while (smaller.tokens > 64) {
    smaller.tokens /= 2;
    smaller.targets /= 2;
    if (fits()) {
      return fmt::format(
          "{} tokens a micro-batch instead of {} would fit (smaller --per_device_train_batch_size "
          "or --cutoff_len)",
          smaller.tokens, request.tokens);
    }
  }
  return "use a smaller --lora_r, fewer --lora_target modules, or a machine with more memory";
}

}  // namespace

MemoryPlan fit_memory(const ModelConfig& config, const MemoryRequest& request, const BaseSize& base,
                      std::int64_t program, std::int64_t available) {
  MemoryPlan smallest;
  for (const bool streams : {false, true}) {
    if (streams && (request.full_parameters || request.streaming == Streaming::kNever)) break;
    if (!streams && request.streaming == Streaming::kAlways) continue;
    for (const Recompute recompute : recomputations(request.recompute)) {
      MemoryRequest changed = request;
      changed.recompute = recompute;
      MemoryPlan plan = with_base(config, changed, base, program, streams);
      if (plan.total() <= available) {
        if (streams) {
          // Room for the next layer beside the present one is all that reading ahead can use.
          const std::int64_t room = available - plan.total();
          const std::int64_t least = plan.window;
          plan.window = std::min(plan.window + room, 2 * base.largest + look_ahead(base));
          plan.parts["base"] += plan.window - least;
        }
        return plan;
      }
      if (smallest.parts.empty() || plan.total() < smallest.total()) smallest = std::move(plan);
    }
  }
  const auto largest =
      std::max_element(smallest.parts.begin(), smallest.parts.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; });
  throw Error(ExitCode::kResources,
              fmt::format("this run needs {} of memory at least{}, {} are available; the largest "
                          "part is {} with {}",
                          format_bytes(smallest.total()),
                          smallest.streams() ? " (with the base streamed from disk)" : "",
                          format_bytes(available), largest->first, format_bytes(largest->second)),
              help_for(config, request, base, program, available));
}

}  // namespace ds
