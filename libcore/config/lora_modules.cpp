#include <algorithm>
#include <cmath>

#include "libcore/config/lora_config.h"

namespace ds {
namespace {

class ModuleList {
 public:
  explicit ModuleList(const ModelConfig& config) : config_(config) {}

  void add(std::string path, ModuleKind kind, std::int64_t layer, std::int64_t expert,
           std::int64_t in, std::int64_t out) {
    modules_.push_back({std::move(path), kind, layer, expert, in, out});
  }

  void add_attention(const std::string& prefix, std::int64_t layer) {
    const std::int64_t hidden = config_.hidden_size;
    const std::int64_t heads = config_.num_attention_heads;
    const std::int64_t q_width = heads * config_.q_head_dim();
    const auto linear = [&](const char* name, std::int64_t in, std::int64_t out) {
      add(prefix + name, ModuleKind::kAttention, layer, -1, in, out);
    };
    if (config_.q_lora_rank > 0) {
      linear("q_a_proj", hidden, config_.q_lora_rank);
      linear("q_b_proj", config_.q_lora_rank, q_width);
    } else {
      linear("q_proj", hidden, q_width);
    }
    linear("kv_a_proj_with_mqa", hidden, config_.kv_lora_rank + config_.qk_rope_head_dim);
    linear("kv_b_proj", config_.kv_lora_rank,
           heads * (config_.qk_nope_head_dim + config_.v_head_dim));
    linear("o_proj", heads * config_.v_head_dim, hidden);
  }

  void add_mlp(const std::string& prefix, ModuleKind kind, std::int64_t layer, std::int64_t expert,
               std::int64_t width) {
    add(prefix + "gate_proj", kind, layer, expert, config_.hidden_size, width);
    add(prefix + "up_proj", kind, layer, expert, config_.hidden_size, width);
    add(prefix + "down_proj", kind, layer, expert, width, config_.hidden_size);
  }

  std::vector<ModuleInfo> take() { return std::move(modules_); }

 private:
  const ModelConfig& config_;
  std::vector<ModuleInfo> modules_;
};

std::int64_t adapter_size(const LoraTarget& target, bool use_dora) {
  const ModuleInfo& module = target.module;
  return target.rank * (module.in + module.out) + (use_dora ? module.out : 0);
}

}  // namespace

std::string_view module_kind_name(ModuleKind kind) {
  switch (kind) {
    case ModuleKind::kAttention:
      return "attention";
    case ModuleKind::kMlp:
      return "mlp";
    case ModuleKind::kSharedExperts:
      return "shared_experts";
    case ModuleKind::kExperts:
      return "experts";
    case ModuleKind::kRouter:
      return "router";
    case ModuleKind::kEmbedding:
      return "embedding";
    case ModuleKind::kHead:
      return "head";
  }
  return "unknown";
}

std::vector<ModuleInfo> list_modules(const ModelConfig& config) {
  ModuleList list(config);
  list.add("model.embed_tokens", ModuleKind::kEmbedding, -1, -1, config.vocab_size,
           config.hidden_size);
  for (std::int64_t layer = 0; layer < config.num_hidden_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    list.add_attention(prefix + "self_attn.", layer);
    if (!config.is_moe_layer(layer)) {
      list.add_mlp(prefix + "mlp.", ModuleKind::kMlp, layer, -1, config.intermediate_size);
      continue;
    }
    for (std::int64_t expert = 0; expert < config.n_routed_experts; ++expert) {
      list.add_mlp(prefix + "mlp.experts." + std::to_string(expert) + ".", ModuleKind::kExperts,
                   layer, expert, config.moe_intermediate_size);
    }
    if (config.n_shared_experts > 0) {
      list.add_mlp(prefix + "mlp.shared_experts.", ModuleKind::kSharedExperts, layer, -1,
                   config.n_shared_experts * config.moe_intermediate_size);
    }
  }
  list.add("lm_head", ModuleKind::kHead, -1, -1, config.hidden_size, config.vocab_size);
  return list.take();
}

std::map<std::string, std::int64_t> trainable_by_kind(const std::vector<LoraTarget>& targets,
                                                      bool use_dora) {
  std::map<std::string, std::int64_t> out;
  for (const LoraTarget& target : targets) {
    out[std::string(module_kind_name(target.module.kind))] += adapter_size(target, use_dora);
  }
  return out;
}

std::int64_t rank_for_budget(const LoraConfig& lora, const ModelConfig& model, double share) {
  // Ranks that rank_pattern fixes stay; the size is linear in the rank of all the others, so its
  // values at ranks 1 and 2 say everything.
  const auto size_at = [&](std::int64_t rank) {
    LoraConfig trial = lora;
    trial.r = rank;
    std::int64_t size = 0;
    for (const LoraTarget& target : match_targets(trial, model)) {
      size += adapter_size(target, lora.use_dora);
    }
    return size;
  };
  const std::int64_t at_one = size_at(1);
  const std::int64_t slope = size_at(2) - at_one;
  const long double limit =
      static_cast<long double>(share) * static_cast<long double>(count_parameters(model).total());
  const auto below = [&](std::int64_t rank) {
    return static_cast<long double>(at_one + (rank - 1) * slope) < limit;
  };
  if (!below(1)) return 0;
  if (slope == 0) return 1;
  const long double estimate = (limit - static_cast<long double>(at_one)) / slope + 1;
  auto rank =
      static_cast<std::int64_t>(std::min(estimate, static_cast<long double>(kLargestLoraRank)));
  rank = std::max<std::int64_t>(rank, 1);
  while (rank > 1 && !below(rank)) --rank;
  while (rank < kLargestLoraRank && below(rank + 1)) ++rank;
  return rank;
}

}  // namespace ds
