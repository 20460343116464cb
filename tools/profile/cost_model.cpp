#include "tools/profile/cost_model.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>

#include "libcore/base/error.h"

namespace ds::profile {

namespace {

// Rows are keyed by layer and part; adapters are added to the row of their module.
struct AdapterCount {
  std::int64_t parameters = 0;
  std::int64_t activated = 0;
};

class Counter {
 public:
  Counter(const ModelConfig& config, const CostRequest& request) : c_(config), request_(request) {
    if (!request.lora) return;
    lowest_ = std::numeric_limits<std::int64_t>::max();
    for (const LoraTarget& target : *request.lora) {
      add_adapter(target);
      const ModuleKind kind = target.module.kind;
      if (kind != ModuleKind::kHead) lowest_ = std::min(lowest_, target.module.layer);
    }
  }

  CostTable count() {
    const std::int64_t d = c_.hidden_size;
    add("embedding", "embedding", -1, c_.vocab_size * d, c_.vocab_size * d, 0, 0);
    for (std::int64_t layer = 0; layer < c_.num_hidden_layers; ++layer) {
      add_layer(fmt::format("layers.{}.", layer), layer, c_.is_moe_layer(layer));
    }
    const std::int64_t head = c_.vocab_size * d;
    const std::int64_t own_head = c_.tie_word_embeddings ? 0 : head;
    add("head", "head", kAbove, own_head + d, own_head + d, head, 0);
    for (std::int64_t i = 0; request_.mtp && i < c_.num_nextn_predict_layers; ++i) {
      const std::string prefix = fmt::format("mtp.{}.", i);
      add(prefix + "embedding", "embedding", kAbove, head, head, 0, 0);
      // Joins the hidden state and the next token's embedding, each with a norm of its own.
      add(prefix + "projection", "projection", kAbove, 2 * d * d + 2 * d, 2 * d * d + 2 * d,
          2 * d * d, 0);
      add_layer(prefix, kAbove, c_.n_routed_experts > 0);
      add(prefix + "head", "head", kAbove, head + d, head + d, head, 0);
    }
    table_.total.name = "total";
    for (const CostRow& row : table_.rows) {
      table_.total.parameters += row.parameters;
      table_.total.activated += row.activated;
      table_.total.adapter_parameters += row.adapter_parameters;
      table_.total.forward_flops += row.forward_flops;
      table_.total.input_gradient_flops += row.input_gradient_flops;
      table_.total.weight_gradient_flops += row.weight_gradient_flops;
    }
    return std::move(table_);
  }

 private:
  static constexpr std::int64_t kAbove = std::numeric_limits<std::int64_t>::max();

  void add_adapter(const LoraTarget& target) {
    const ModuleInfo& m = target.module;
    std::string row = fmt::format("layers.{}.mlp", m.layer);
    if (m.kind == ModuleKind::kAttention) row = fmt::format("layers.{}.attention", m.layer);
    if (m.kind == ModuleKind::kEmbedding) row = "embedding";
    if (m.kind == ModuleKind::kHead) row = "head";
    const std::int64_t size = target.rank * (m.in + m.out);
    AdapterCount& count = adapters_[row];
    count.parameters += size;
    if (m.kind == ModuleKind::kExperts) {
      // A token visits K of E experts: the mean over experts, which is exact when all carry the
      // same rank. Gathered first, divided once.
      expert_adapters_[row] += size;
    } else if (m.kind == ModuleKind::kEmbedding) {
      count.activated += target.rank * m.out;  // A is a gather
    } else {
      count.activated += size;
    }
  }

  AdapterCount adapter_of(const std::string& row) const {
    AdapterCount count;
    if (const auto found = adapters_.find(row); found != adapters_.end()) count = found->second;
    if (const auto found = expert_adapters_.find(row); found != expert_adapters_.end()) {
      count.activated += found->second * c_.num_experts_per_tok / c_.n_routed_experts;
    }
    return count;
  }

  // `weights` are matrix weights a token is multiplied with, `core` the forward operations of the
  // attention core.
  void add(std::string name, std::string kind, std::int64_t layer, std::int64_t parameters,
           std::int64_t activated, std::int64_t weights, std::int64_t core) {
    CostRow row{.name = std::move(name),
                .kind = std::move(kind),
                .parameters = parameters,
                .activated = activated};
    const AdapterCount adapter = adapter_of(row.name);
    row.adapter_parameters = adapter.parameters;
    row.forward_flops = 2 * weights + 2 * adapter.activated + core;
    const bool full = !request_.lora;
    // Nothing trained below or in this row: no gradient reaches it. The head's is the start of all.
    const bool reached = full || layer >= lowest_ || adapter.parameters > 0;
    if (request_.train && reached) {
      // Both gradients of the attention core are of activations: twice its forward.
      row.input_gradient_flops = 2 * weights + 2 * adapter.activated + 2 * core;
      row.weight_gradient_flops = 2 * adapter.activated + (full ? 2 * weights : 0);
    }
    table_.rows.push_back(std::move(row));
  }

  void add_layer(const std::string& prefix, std::int64_t layer, bool moe) {
    const std::int64_t d = c_.hidden_size;
    const std::int64_t h = c_.num_attention_heads;
    const std::int64_t q = h * c_.q_head_dim();
    const std::int64_t kv_a = c_.kv_lora_rank + c_.qk_rope_head_dim;
    const std::int64_t attention =
        (c_.q_lora_rank > 0 ? c_.q_lora_rank * (d + q) : d * q) + d * kv_a +
        c_.kv_lora_rank * h * (c_.qk_nope_head_dim + c_.v_head_dim) + h * c_.v_head_dim * d;
    const std::int64_t bias = c_.attention_bias ? c_.q_lora_rank + kv_a + d : 0;
    const std::int64_t norms = d + c_.q_lora_rank + c_.kv_lora_rank;
    const std::int64_t per_position = request_.decode
                                          ? h * (2 * c_.kv_lora_rank + c_.qk_rope_head_dim)
                                          : h * (c_.q_head_dim() + c_.v_head_dim);
    std::int64_t core = per_position * request_.seq_len;  // 2 operations, half of the positions
    if (request_.decode || request_.convention == Convention::kNoncausal) core *= 2;
    if (request_.convention == Convention::k6n) core = 0;
    add(prefix + "attention", "attention", layer, attention + bias + norms,
        attention + bias + norms, attention, core);

    if (!moe) {
      const std::int64_t mlp = 3 * d * c_.intermediate_size;
      return add(prefix + "mlp", "dense", layer, mlp + d, mlp + d, mlp, 0);
    }
    const std::int64_t expert = 3 * d * c_.moe_intermediate_size;
    const std::int64_t router = c_.n_routed_experts * d;
    const std::int64_t router_bias = c_.method == RouterMethod::kNoauxTc ? c_.n_routed_experts : 0;
    const std::int64_t shared = c_.n_shared_experts * expert;
    const std::int64_t visited = c_.num_experts_per_tok * expert + shared;
    add(prefix + "mlp", "moe", layer,
        c_.n_routed_experts * expert + shared + router + router_bias + d,
        visited + router + router_bias + d,
        visited + (request_.convention == Convention::kMegatron ? 0 : router), 0);
  }

  const ModelConfig& c_;
  const CostRequest& request_;
  std::int64_t lowest_ = -1;
  std::map<std::string, AdapterCount> adapters_;
  std::map<std::string, std::int64_t> expert_adapters_;
  CostTable table_;
};

}  // namespace

std::optional<Convention> parse_convention(std::string_view spelling) {
  if (spelling == "causal") return Convention::kCausal;
  if (spelling == "noncausal") return Convention::kNoncausal;
  if (spelling == "megatron") return Convention::kMegatron;
  if (spelling == "6n") return Convention::k6n;
  return std::nullopt;
}

CostTable count_costs(const ModelConfig& config, const CostRequest& request) {
  if (request.mtp && config.num_nextn_predict_layers == 0) {
    throw Error(ExitCode::kUsage,
                "--mtp: num_nextn_predict_layers of this config is 0, needed is 1",
                "leave --mtp out");
  }
  return Counter(config, request).count();
}

double decode_bytes(const ModelConfig& config, const CostRow& row, const DecodeStep& step,
                    double weight_width) {
  const auto batch = static_cast<double>(step.batch);
  auto weights = static_cast<double>(row.activated);
  double cache = 0.0;
  if (row.kind == "embedding") weights = batch * static_cast<double>(config.hidden_size);
  if (row.kind == "head" && config.tie_word_embeddings) {
    weights += static_cast<double>(config.vocab_size * config.hidden_size);
  }
  if (row.kind == "attention") {
    cache = batch * static_cast<double>(step.seq_len * step.cache_bytes);
  }
  if (row.kind == "moe") {
    const auto experts = static_cast<double>(config.n_routed_experts);
    const auto chosen = static_cast<double>(config.num_experts_per_tok);
    const double reached = experts * (1.0 - std::pow(1.0 - chosen / experts, batch));
    weights += (reached - chosen) *
               static_cast<double>(3 * config.hidden_size * config.moe_intermediate_size);
  }
  return weights * weight_width + cache;
}

std::int64_t kv_cache_bytes_per_token(const ModelConfig& config, std::string_view dtype, bool mtp) {
  const std::int64_t layers =
      config.num_hidden_layers + (mtp ? config.num_nextn_predict_layers : 0);
  const std::int64_t latent = config.kv_lora_rank;
  const std::int64_t rope = config.qk_rope_head_dim;
  if (dtype == "fp8") return layers * (latent + (latent + 127) / 128 * 4 + 2 * rope);
  return layers * (latent + rope) * (dtype == "f32" ? 4 : 2);
}

}  // namespace ds::profile
