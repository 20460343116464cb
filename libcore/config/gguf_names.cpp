#include "libcore/config/gguf_names.h"

#include <fmt/format.h>

#include "libcore/base/error.h"

namespace ds {

namespace {

using Kind = GgufTensorPlan::Kind;
using Shape = std::vector<std::int64_t>;

constexpr const char* kArch = "deepseek2.";

// Takes the tensors of one model in order.
class PlanBuilder {
 public:
  PlanBuilder(const ModelConfig& config, GgufMla mla) : c_(config), mla_(mla) {}

  std::vector<GgufTensorPlan> build() {
    whole("token_embd.weight", "model.embed_tokens.weight", {c_.vocab_size, c_.hidden_size});
    for (layer_ = 0; layer_ < c_.num_hidden_layers; ++layer_) {
      attention();
      if (c_.is_moe_layer(layer_)) {
        experts();
      } else {
        mlp("ffn_", "", "mlp.", c_.intermediate_size);
      }
    }
    whole("output_norm.weight", "model.norm.weight", {c_.hidden_size});
    if (!c_.tie_word_embeddings) {
      whole("output.weight", "lm_head.weight", {c_.vocab_size, c_.hidden_size});
    }
    return std::move(plan_);
  }

 private:
  void add(GgufTensorPlan tensor) {
    const bool weight = tensor.name.ends_with(".weight");
    tensor.always_f32 = tensor.shape.size() <= 1 || tensor.name.ends_with("_norm.weight") ||
                        tensor.name.ends_with("ffn_gate_inp.weight") || !weight;
    plan_.push_back(std::move(tensor));
  }
  void whole(std::string name, std::string source, const Shape& shape) {
    add({std::move(name), Kind::kWhole, std::move(source), 1, shape, shape, false});
  }
  std::string block(const std::string& name) const {
    return fmt::format("blk.{}.{}", layer_, name);
  }
  std::string source(const std::string& name) const {
    return fmt::format("model.layers.{}.{}", layer_, name);
  }
  void in_block(const std::string& name, const std::string& from, const Shape& shape) {
    whole(block(name), source(from), shape);
  }

  void attention() {
    const std::int64_t heads = c_.num_attention_heads, hidden = c_.hidden_size;
    const std::int64_t rank = c_.kv_lora_rank;
    in_block("attn_norm.weight", "input_layernorm.weight", {hidden});
    if (c_.q_lora_rank > 0) {
      in_block("attn_q_a.weight", "self_attn.q_a_proj.weight", {c_.q_lora_rank, hidden});
      in_block("attn_q_a_norm.weight", "self_attn.q_a_layernorm.weight", {c_.q_lora_rank});
      in_block("attn_q_b.weight", "self_attn.q_b_proj.weight",
               {heads * c_.q_head_dim(), c_.q_lora_rank});
    } else {
      in_block("attn_q.weight", "self_attn.q_proj.weight", {heads * c_.q_head_dim(), hidden});
    }
    in_block("attn_kv_a_mqa.weight", "self_attn.kv_a_proj_with_mqa.weight",
             {rank + c_.qk_rope_head_dim, hidden});
    in_block("attn_kv_a_norm.weight", "self_attn.kv_a_layernorm.weight", {rank});
    const std::string kv_b = source("self_attn.kv_b_proj.weight");
    const Shape kv_shape{heads * (c_.qk_nope_head_dim + c_.v_head_dim), rank};
    if (mla_ == GgufMla::kSplit) {
      add({block("attn_k_b.weight"),
           Kind::kKeyB,
           kv_b,
           1,
           kv_shape,
           {heads, rank, c_.qk_nope_head_dim},
           false});
      add({block("attn_v_b.weight"),
           Kind::kValueB,
           kv_b,
           1,
           kv_shape,
           {heads, c_.v_head_dim, rank},
           false});
    } else {
      whole(block("attn_kv_b.weight"), kv_b, kv_shape);
    }
    in_block("attn_output.weight", "self_attn.o_proj.weight", {hidden, heads * c_.v_head_dim});
    in_block("ffn_norm.weight", "post_attention_layernorm.weight", {hidden});
  }

  void mlp(const std::string& prefix, const std::string& suffix, const std::string& from,
           std::int64_t width) {
    for (const char* part : {"gate", "up"}) {
      in_block(prefix + part + suffix + ".weight", from + part + "_proj.weight",
               {width, c_.hidden_size});
    }
    in_block(prefix + "down" + suffix + ".weight", from + "down_proj.weight",
             {c_.hidden_size, width});
  }

  void experts() {
    const std::int64_t count = c_.n_routed_experts;
    in_block("ffn_gate_inp.weight", "mlp.gate.weight", {count, c_.hidden_size});
    if (c_.method == RouterMethod::kNoauxTc) {
      in_block("exp_probs_b.bias", "mlp.gate.e_score_correction_bias", {count});
    }
    for (const std::string part : {"gate", "up", "down"}) {
      const Shape shape = part == "down" ? Shape{c_.hidden_size, c_.moe_intermediate_size}
                                         : Shape{c_.moe_intermediate_size, c_.hidden_size};
      add({block("ffn_" + part + "_exps.weight"),
           Kind::kExperts,
           source("mlp.experts.*." + part + "_proj.weight"),
           count,
           shape,
           {count, shape[0], shape[1]},
           false});
    }
    if (c_.n_shared_experts > 0) {
      mlp("ffn_", "_shexp", "mlp.shared_experts.", c_.n_shared_experts * c_.moe_intermediate_size);
    }
  }

  const ModelConfig& c_;
  GgufMla mla_;
  std::int64_t layer_ = 0;
  std::vector<GgufTensorPlan> plan_;
};

}  // namespace

std::string GgufTensorPlan::source_name(std::int64_t expert) const {
  const std::size_t star = source.find('*');
  if (star == std::string::npos) return source;
  return source.substr(0, star) + std::to_string(expert) + source.substr(star + 1);
}

std::vector<GgufTensorPlan> gguf_tensor_plan(const ModelConfig& config, GgufMla mla) {
  if (config.attention_bias) {
    throw Error(ExitCode::kBadInput,
                "config.json: key 'attention_bias' is true, a deepseek2 GGUF file has no place for "
                "biases of the attention");
  }
  if (!config.rope_interleave) {
    throw Error(ExitCode::kBadInput,
                "config.json: key 'rope_interleave' is false, a deepseek2 GGUF file holds rotary "
                "pairs side by side",
                "permute the rotary rows of q and kv_a first");
  }
  return PlanBuilder(config, mla).build();
}

std::vector<GgufMetadata> gguf_metadata(const ModelConfig& c, GgufMla mla) {
  std::vector<GgufMetadata> keys;
  const auto add = [&](const char* key, GgufSetting value) {
    keys.push_back({std::string(kArch) + key, std::move(value)});
  };
  const bool split = mla == GgufMla::kSplit;
  const bool moe = c.n_routed_experts > 0;
  add("block_count", c.num_hidden_layers);
  add("context_length", c.max_position_embeddings);
  add("embedding_length", c.hidden_size);
  add("feed_forward_length", c.intermediate_size);
  add("attention.head_count", c.num_attention_heads);
  add("attention.head_count_kv", split ? std::int64_t{1} : c.num_attention_heads);
  if (c.yarn) {
    add("rope.scaling.type", std::string("yarn"));
    add("rope.scaling.factor", c.yarn->factor);
    add("rope.scaling.original_context_length", c.yarn->original_max_position);
    if (c.yarn->attention_factor) add("rope.scaling.yarn_attn_factor", *c.yarn->attention_factor);
    add("rope.scaling.yarn_beta_fast", c.yarn->beta_fast);
    add("rope.scaling.yarn_beta_slow", c.yarn->beta_slow);
  }
  add("rope.freq_base", c.rope_theta);
  add("attention.layer_norm_rms_epsilon", c.rms_norm_eps);
  if (moe) {
    add("expert_used_count", c.num_experts_per_tok);
    add("expert_group_count", c.n_group);
    add("expert_group_used_count", c.topk_group);
    add("expert_gating_func", std::int64_t{c.scoring == RouterScoring::kSigmoid ? 2 : 1});
  }
  add("leading_dense_block_count",
      moe ? std::min(c.first_k_dense_replace, c.num_hidden_layers) : c.num_hidden_layers);
  add("vocab_size", c.vocab_size);
  if (c.q_lora_rank > 0) add("attention.q_lora_rank", c.q_lora_rank);
  add("attention.kv_lora_rank", c.kv_lora_rank);
  if (split) {
    add("attention.key_length", c.kv_lora_rank + c.qk_rope_head_dim);
    add("attention.value_length", c.kv_lora_rank);
    add("attention.key_length_mla", c.q_head_dim());
    add("attention.value_length_mla", c.v_head_dim);
  } else {
    add("attention.key_length", c.q_head_dim());
    add("attention.value_length", c.v_head_dim);
  }
  // llama.cpp wants both of these in models without experts as well.
  add("expert_feed_forward_length", moe ? c.moe_intermediate_size : c.intermediate_size);
  if (moe) add("expert_count", c.n_routed_experts);
  add("expert_shared_count", moe ? c.n_shared_experts : std::int64_t{0});
  if (moe) {
    add("expert_weights_scale", c.routed_scaling_factor);
    if (c.norm_topk_prob) add("expert_weights_norm", true);
  }
  add("rope.dimension_count", c.qk_rope_head_dim);
  if (c.yarn && c.yarn->mscale_all_dim != 0.0) {
    add("rope.scaling.yarn_log_multiplier", 0.1 * c.yarn->mscale_all_dim);
  }
  return keys;
}

}  // namespace ds
