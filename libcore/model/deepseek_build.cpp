// Assembling the model from a checkpoint, and attaching what is trained.
#include <fmt/format.h>

#include <cmath>

#include "libcore/base/error.h"
#include "libcore/model/deepseek.h"
#include "libcore/nn/row_ops.h"

namespace ds {

namespace {

kernels::Scoring scoring_of(RouterScoring scoring) {
  return scoring == RouterScoring::kSigmoid ? kernels::Scoring::kSigmoid
                                            : kernels::Scoring::kSoftmax;
}

kernels::TopkMethod method_of(RouterMethod method) {
  switch (method) {
    case RouterMethod::kGreedy:
      return kernels::TopkMethod::kGreedy;
    case RouterMethod::kGroupLimitedGreedy:
      return kernels::TopkMethod::kGroupLimitedGreedy;
    case RouterMethod::kNoauxTc:
      return kernels::TopkMethod::kNoauxTc;
  }
  return kernels::TopkMethod::kNoauxTc;
}

// Norms inside MLA ignore rms_norm_eps (reference/model.md section 3).
constexpr double kLatentNormEps = 1e-6;

}  // namespace

DeepSeekModel::DeepSeekModel(const ModelConfig& config, Checkpoint checkpoint, DType compute)
    : config_(config), compute_(compute), weights_(std::move(checkpoint), compute) {}

std::unique_ptr<DeepSeekModel> DeepSeekModel::load(const ModelConfig& config, Checkpoint checkpoint,
                                                   DType compute, std::int64_t max_positions) {
  std::unique_ptr<DeepSeekModel> model(new DeepSeekModel(config, std::move(checkpoint), compute));
  model->build(max_positions);
  return model;
}

Linear DeepSeekModel::make_linear(const std::string& path, std::int64_t in, std::int64_t out,
                                  bool bias) {
  Linear linear;
  linear.path = path;
  linear.in = in;
  linear.out = out;
  linear.weight = weights_.matrix(path + ".weight", out, in);
  if (bias) linear.bias = weights_.vector(path + ".bias", out);
  return linear;
}

RmsNorm DeepSeekModel::make_norm(const std::string& name, std::int64_t size, double eps) {
  return {.weight = weights_.vector(name, size), .eps = eps};
}

Mla DeepSeekModel::make_attention(const std::string& prefix) {
  const ModelConfig& c = config_;
  const std::int64_t heads = c.num_attention_heads;
  Mla mla;
  mla.shape = {.heads = static_cast<int>(heads),
               .nope = static_cast<int>(c.qk_nope_head_dim),
               .rope = static_cast<int>(c.qk_rope_head_dim),
               .value = static_cast<int>(c.v_head_dim)};
  mla.kv_lora_rank = c.kv_lora_rank;
  mla.softmax_scale = rope_settings(c).softmax_scale;
  mla.rope = {.cos = rope_cos_.view(), .sin = rope_sin_.view(), .interleaved = c.rope_interleave};
  mla.has_q_lora = c.q_lora_rank > 0;
  if (mla.has_q_lora) {
    mla.q_a_proj = make_linear(prefix + "q_a_proj", c.hidden_size, c.q_lora_rank, c.attention_bias);
    mla.q_a_norm = make_norm(prefix + "q_a_layernorm.weight", c.q_lora_rank, kLatentNormEps);
    mla.q_b_proj = make_linear(prefix + "q_b_proj", c.q_lora_rank, heads * c.q_head_dim(), false);
  } else {
    mla.q_proj = make_linear(prefix + "q_proj", c.hidden_size, heads * c.q_head_dim(), false);
  }
  mla.kv_a_proj = make_linear(prefix + "kv_a_proj_with_mqa", c.hidden_size,
                              c.kv_lora_rank + c.qk_rope_head_dim, c.attention_bias);
  mla.kv_a_norm = make_norm(prefix + "kv_a_layernorm.weight", c.kv_lora_rank, kLatentNormEps);
  mla.kv_b_proj = make_linear(prefix + "kv_b_proj", c.kv_lora_rank,
                              heads * (c.qk_nope_head_dim + c.v_head_dim), false);
  mla.o_proj =
      make_linear(prefix + "o_proj", heads * c.v_head_dim, c.hidden_size, c.attention_bias);
  return mla;
}

Mlp DeepSeekModel::make_mlp(const std::string& prefix, std::int64_t width) {
  const std::int64_t hidden = config_.hidden_size;
  Mlp mlp;
  mlp.width = width;
  mlp.gate_proj = make_linear(prefix + "gate_proj", hidden, width, false);
  mlp.up_proj = make_linear(prefix + "up_proj", hidden, width, false);
  mlp.down_proj = make_linear(prefix + "down_proj", width, hidden, false);
  return mlp;
}

Moe DeepSeekModel::make_moe(const std::string& prefix) {
  const ModelConfig& c = config_;
  Moe moe;
  moe.width = c.moe_intermediate_size;
  moe.router = {.scoring = scoring_of(c.scoring),
                .method = method_of(c.method),
                .groups = static_cast<int>(c.n_group),
                .kept_groups = static_cast<int>(c.topk_group),
                .top_k = static_cast<int>(c.num_experts_per_tok),
                .normalise = c.norm_topk_prob,
                .scale = c.routed_scaling_factor};
  moe.gate_weight = weights_.matrix(prefix + "gate.weight", c.n_routed_experts, c.hidden_size);
  if (c.method == RouterMethod::kNoauxTc) {
    moe.gate_bias = weights_.vector(prefix + "gate.e_score_correction_bias", c.n_routed_experts);
  }
  moe.experts.resize(static_cast<std::size_t>(c.n_routed_experts));
  for (std::size_t e = 0; e < moe.experts.size(); ++e) {
    const std::string path = fmt::format("{}experts.{}.", prefix, e);
    Expert& expert = moe.experts[e];
    expert.gate_proj = make_linear(path + "gate_proj", c.hidden_size, moe.width, false);
    expert.up_proj = make_linear(path + "up_proj", c.hidden_size, moe.width, false);
    expert.down_proj = make_linear(path + "down_proj", moe.width, c.hidden_size, false);
  }
  if (c.n_shared_experts > 0) {
    moe.shared = make_mlp(prefix + "shared_experts.", c.n_shared_experts * moe.width);
  }
  return moe;
}

void DeepSeekModel::build_rope(std::int64_t max_positions) {
  const RopeSettings settings = rope_settings(config_);
  const auto half = static_cast<std::int64_t>(settings.inv_freq.size());
  const DType dtype = kernels::statistics_dtype(compute_);
  rope_cos_ = Tensor(dtype, {max_positions, half});
  rope_sin_ = Tensor(dtype, {max_positions, half});
  for (std::int64_t pos = 0; pos < max_positions; ++pos) {
    for (std::int64_t i = 0; i < half; ++i) {
      // The angle is a product of two f32 numbers in the reference; only F64 checks differ.
      const float inv_freq = settings.inv_freq[static_cast<std::size_t>(i)];
      const std::int64_t at = pos * half + i;
      if (dtype == DType::kF64) {
        const double angle = static_cast<double>(pos) * static_cast<double>(inv_freq);
        rope_cos_.as<double>()[at] = std::cos(angle) * settings.attention_factor;
        rope_sin_.as<double>()[at] = std::sin(angle) * settings.attention_factor;
      } else {
        const float angle = static_cast<float>(pos) * inv_freq;
        const auto factor = static_cast<float>(settings.attention_factor);
        rope_cos_.as<float>()[at] = std::cos(angle) * factor;
        rope_sin_.as<float>()[at] = std::sin(angle) * factor;
      }
    }
  }
}

void DeepSeekModel::build(std::int64_t max_positions) {
  const ModelConfig& c = config_;
  build_rope(max_positions);
  embedding_.table = weights_.matrix("model.embed_tokens.weight", c.vocab_size, c.hidden_size);
  blocks_.resize(static_cast<std::size_t>(c.num_hidden_layers));
  for (std::int64_t layer = 0; layer < c.num_hidden_layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    Block& block = blocks_[static_cast<std::size_t>(layer)];
    block.index = layer;
    block.attention_norm =
        make_norm(prefix + "input_layernorm.weight", c.hidden_size, c.rms_norm_eps);
    block.attention = make_attention(prefix + "self_attn.");
    block.mlp_norm =
        make_norm(prefix + "post_attention_layernorm.weight", c.hidden_size, c.rms_norm_eps);
    if (c.is_moe_layer(layer)) {
      block.moe = make_moe(prefix + "mlp.");
    } else {
      block.mlp = make_mlp(prefix + "mlp.", c.intermediate_size);
    }
  }
  head_.norm = make_norm("model.norm.weight", c.hidden_size, c.rms_norm_eps);
  if (c.tie_word_embeddings) {
    head_.lm_head.path = "lm_head";
    head_.lm_head.in = c.hidden_size;
    head_.lm_head.out = c.vocab_size;
    head_.lm_head.weight = embedding_.table;
  } else {
    head_.lm_head = make_linear("lm_head", c.hidden_size, c.vocab_size, false);
  }
  for_each_linear([this](Linear& linear) { linears_[linear.path] = &linear; });
}

namespace {

void for_each_linear(Block& block, const std::function<void(Linear&)>& f) {
  const auto mlp_linears = [&f](Mlp& mlp) {
    f(mlp.gate_proj);
    f(mlp.up_proj);
    f(mlp.down_proj);
  };
  Mla& attention = block.attention;
  if (attention.has_q_lora) {
    f(attention.q_a_proj);
    f(attention.q_b_proj);
  } else {
    f(attention.q_proj);
  }
  f(attention.kv_a_proj);
  f(attention.kv_b_proj);
  f(attention.o_proj);
  if (block.mlp) mlp_linears(*block.mlp);
  if (block.moe) {
    for (Expert& expert : block.moe->experts) {
      f(expert.gate_proj);
      f(expert.up_proj);
      f(expert.down_proj);
    }
    if (block.moe->shared) mlp_linears(*block.moe->shared);
  }
}

}  // namespace

void DeepSeekModel::for_each_linear(const std::function<void(Linear&)>& f) {
  for (Block& block : blocks_) ds::for_each_linear(block, f);
  f(head_.lm_head);
}

void DeepSeekModel::add_mapped(const WeightRef& weight, std::vector<PageRange>& part) const {
  for (const ConstView& view : {weight.data, weight.scale}) {
    if (!view || !weights_.maps(view.data())) continue;
    part.push_back({static_cast<const std::byte*>(view.data()),
                    static_cast<std::size_t>(view.size() * kernels::dtype_size(view.dtype()))});
  }
}

void DeepSeekModel::drop_mapped(const WeightRef& weight) const {
  std::vector<PageRange> part;
  add_mapped(weight, part);
  for (const PageRange& range : part) drop_pages(range);
}

std::vector<std::vector<PageRange>> DeepSeekModel::mapped_parts() {
  std::vector<std::vector<PageRange>> parts(blocks_.size() + 1);
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    Block& block = blocks_[layer];
    std::vector<PageRange>& part = parts[layer];
    ds::for_each_linear(block, [&](Linear& linear) { add_mapped(linear.weight, part); });
    if (block.moe) add_mapped(block.moe->gate_weight, part);
  }
  add_mapped(head_.lm_head.weight, parts.back());
  return parts;
}

void DeepSeekModel::stream_weights(std::size_t window) {
  std::vector<PageRange> embedding;
  if (!config_.tie_word_embeddings) add_mapped(embedding_.table, embedding);
  stream_ = std::make_unique<PageStream>(mapped_parts(), embedding, window);
  stream_->begin({});
}

const Linear* DeepSeekModel::find_linear(const std::string& path) const {
  const auto it = linears_.find(path);
  return it == linears_.end() ? nullptr : it->second;
}

Parameter& DeepSeekModel::add_parameter(std::string name, ParameterRole role,
                                        std::vector<std::int64_t> shape) {
  Parameter& parameter = storage_.emplace_back();
  parameter.name = std::move(name);
  parameter.role = role;
  parameter.value = Tensor(kernels::statistics_dtype(compute_), std::move(shape));
  parameters_.push_back(&parameter);
  return parameter;
}

void DeepSeekModel::add_lora(const LoraConfig& lora, const std::vector<LoraTarget>& targets) {
  std::uint64_t id = 0;
  for (const LoraTarget& target : targets) {
    const ModuleInfo& module = target.module;
    LoraSlot slot;
    slot.scaling = target.scaling;
    slot.dropout = lora.dropout;
    slot.id = ++id;
    if (module.kind == ModuleKind::kEmbedding) {
      slot.a = &add_parameter(module.path + ".lora_embedding_A", ParameterRole::kLoraEmbedding,
                              {config_.vocab_size, target.rank});
      slot.b = &add_parameter(module.path + ".lora_embedding_B", ParameterRole::kLoraEmbedding,
                              {config_.hidden_size, target.rank});
      embedding_.lora = std::move(slot);
      continue;
    }
    const auto found = linears_.find(module.path);
    if (found == linears_.end()) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("adapter target '{}' is not a linear layer of this model", module.path),
          "name one of the projections that deepseek-finetune info lists");
    }
    Linear& linear = *found->second;
    slot.a = &add_parameter(module.path + ".lora_A.weight", ParameterRole::kLoraA,
                            {target.rank, linear.in});
    slot.b = &add_parameter(module.path + ".lora_B.weight", ParameterRole::kLoraB,
                            {linear.out, target.rank});
    if (lora.use_dora) {
      slot.magnitude = &add_parameter(module.path + ".lora_magnitude_vector",
                                      ParameterRole::kMagnitude, {linear.out});
      slot.base_norm2 = row_squared_norms(linear.weight, kernels::statistics_dtype(compute_));
      drop_mapped(linear.weight);
    }
    linear.lora = std::move(slot);
  }
}

void DeepSeekModel::reset_magnitudes() {
  for (auto& [path, linear] : linears_) {
    if (!linear->lora || linear->lora->magnitude == nullptr) continue;
    const Tensor& norm2 = linear->lora->base_norm2;
    Tensor& magnitude = linear->lora->magnitude->value;
    for (std::int64_t i = 0; i < linear->out; ++i) {
      if (norm2.dtype() == DType::kF64) {
        magnitude.as<double>()[i] = std::sqrt(norm2.as<double>()[i]);
      } else {
        magnitude.as<float>()[i] = std::sqrt(norm2.as<float>()[i]);
      }
    }
  }
}

// Takes a weight of the checkpoint into memory as a trained parameter.
Parameter& DeepSeekModel::adopt_weight(const std::string& name, ParameterRole role,
                                       const std::vector<std::int64_t>& shape) {
  Parameter& parameter = storage_.emplace_back();
  parameter.name = name;
  parameter.role = role;
  parameter.value = weights_.widened(name, shape);
  parameters_.push_back(&parameter);
  return parameter;
}

void DeepSeekModel::make_all_trainable() {
  full_ = true;
  const auto adopt_norm = [this](RmsNorm& norm, const std::string& name) {
    Parameter& p = adopt_weight(name, ParameterRole::kNorm, {norm.weight.cols()});
    norm.parameter = &p;
    norm.weight = std::as_const(p.value).view();
  };
  const auto adopt_linear = [this](Linear& linear) {
    Parameter& p =
        adopt_weight(linear.path + ".weight", ParameterRole::kWeight, {linear.out, linear.in});
    drop_mapped(linear.weight);
    linear.weight_parameter = &p;
    linear.weight = {.data = std::as_const(p.value).view(), .scale = {}};
    if (linear.bias) {
      Parameter& bias = adopt_weight(linear.path + ".bias", ParameterRole::kNorm, {linear.out});
      linear.bias_parameter = &bias;
      linear.bias = std::as_const(bias.value).view();
    }
  };
  Parameter& table = adopt_weight("model.embed_tokens.weight", ParameterRole::kWeight,
                                  {config_.vocab_size, config_.hidden_size});
  drop_mapped(embedding_.table);
  embedding_.parameter = &table;
  embedding_.table = {.data = std::as_const(table.value).view(), .scale = {}};
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer) {
    Block& block = blocks_[layer];
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    adopt_norm(block.attention_norm, prefix + "input_layernorm.weight");
    adopt_norm(block.mlp_norm, prefix + "post_attention_layernorm.weight");
    if (block.attention.has_q_lora) {
      adopt_norm(block.attention.q_a_norm, prefix + "self_attn.q_a_layernorm.weight");
    }
    adopt_norm(block.attention.kv_a_norm, prefix + "self_attn.kv_a_layernorm.weight");
    if (block.moe) {
      Parameter& gate = adopt_weight(prefix + "mlp.gate.weight", ParameterRole::kWeight,
                                     {config_.n_routed_experts, config_.hidden_size});
      block.moe->gate_parameter = &gate;
      block.moe->gate_weight = {.data = std::as_const(gate.value).view(), .scale = {}};
    }
  }
  adopt_norm(head_.norm, "model.norm.weight");
  for_each_linear([&](Linear& linear) {
    if (&linear == &head_.lm_head && config_.tie_word_embeddings) {
      linear.weight_parameter = embedding_.parameter;
      linear.weight = embedding_.table;
    } else {
      adopt_linear(linear);
    }
  });
}

void DeepSeekModel::allocate_gradients() {
  for (Parameter* parameter : parameters_) {
    parameter->grad = Tensor(parameter->value.dtype(), parameter->value.shape());
  }
}

}  // namespace ds
