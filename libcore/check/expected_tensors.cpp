#include "libcore/check/expected_tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <mutex>
#include <system_error>

#include "libcore/base/ranges.h"

namespace ds::check {
namespace {

constexpr std::string_view kLayerPrefix = "model.layers.";
constexpr std::string_view kExpertPrefix = "mlp.experts.";
constexpr std::string_view kScaleEnding = "_scale_inv";

void add(LayerPlan& plan, std::string stem, std::vector<std::int64_t> shape,
         TensorRole role = TensorRole::kMatrix, bool required = true) {
  std::string kind = stem;
  plan.slots.push_back({std::move(stem), std::move(kind), std::move(shape), role, required});
}

void sort(LayerPlan& plan) {
  std::sort(plan.slots.begin(), plan.slots.end(),
            [](const TensorSlot& a, const TensorSlot& b) { return a.stem < b.stem; });
}

void add_mlp(LayerPlan& plan, const std::string& prefix, std::int64_t width, std::int64_t hidden) {
  add(plan, prefix + "gate_proj.weight", {width, hidden});
  add(plan, prefix + "up_proj.weight", {width, hidden});
  add(plan, prefix + "down_proj.weight", {hidden, width});
}

LayerPlan attention_plan(const ModelConfig& c) {
  LayerPlan plan;
  const std::int64_t heads = c.num_attention_heads;
  const std::string a = "self_attn.";
  add(plan, "input_layernorm.weight", {c.hidden_size}, TensorRole::kNorm);
  add(plan, "post_attention_layernorm.weight", {c.hidden_size}, TensorRole::kNorm);
  const std::int64_t q_width = heads * c.q_head_dim();
  if (c.q_lora_rank > 0) {
    add(plan, a + "q_a_proj.weight", {c.q_lora_rank, c.hidden_size});
    add(plan, a + "q_a_layernorm.weight", {c.q_lora_rank}, TensorRole::kNorm);
    add(plan, a + "q_b_proj.weight", {q_width, c.q_lora_rank});
  } else {
    add(plan, a + "q_proj.weight", {q_width, c.hidden_size});
  }
  const std::int64_t kv_a = c.kv_lora_rank + c.qk_rope_head_dim;
  add(plan, a + "kv_a_proj_with_mqa.weight", {kv_a, c.hidden_size});
  add(plan, a + "kv_a_layernorm.weight", {c.kv_lora_rank}, TensorRole::kNorm);
  add(plan, a + "kv_b_proj.weight", {heads * (c.qk_nope_head_dim + c.v_head_dim), c.kv_lora_rank});
  add(plan, a + "o_proj.weight", {c.hidden_size, heads * c.v_head_dim});
  if (c.attention_bias) {
    if (c.q_lora_rank > 0) {
      add(plan, a + "q_a_proj.bias", {c.q_lora_rank}, TensorRole::kBias);
    }
    add(plan, a + "kv_a_proj_with_mqa.bias", {kv_a}, TensorRole::kBias);
    add(plan, a + "o_proj.bias", {c.hidden_size}, TensorRole::kBias);
  }
  return plan;
}

// Takes decimal digits up to a '.' off `text`; -1 when there are none.
std::int64_t take_number(std::string_view& text) {
  std::int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const auto digits = static_cast<std::size_t>(end - text.data());
  const bool plain = error == std::errc() && digits > 0 && text[0] != '-' && digits < text.size() &&
                     text[digits] == '.' && (digits == 1 || text[0] != '0');
  if (!plain) return -1;
  text.remove_prefix(digits + 1);
  return value;
}

}  // namespace

int LayerPlan::find(std::string_view stem) const {
  const auto at = std::lower_bound(
      slots.begin(), slots.end(), stem,
      [](const TensorSlot& slot, std::string_view key) { return slot.stem < key; });
  return at != slots.end() && at->stem == stem ? static_cast<int>(at - slots.begin()) : -1;
}

ExpectedTensors::ExpectedTensors(const ModelConfig& config)
    : config_(config),
      layers_(config.num_hidden_layers),
      prediction_layers_(config.num_nextn_predict_layers),
      experts_(config.n_routed_experts) {
  const ModelConfig& c = config_;
  add(outside_, "model.embed_tokens.weight", {c.vocab_size, c.hidden_size}, TensorRole::kEmbedding);
  add(outside_, "model.norm.weight", {c.hidden_size}, TensorRole::kNorm);
  add(outside_, "lm_head.weight", {c.vocab_size, c.hidden_size}, TensorRole::kEmbedding,
      !c.tie_word_embeddings);
  dense_ = attention_plan(c);
  add_mlp(dense_, "mlp.", c.intermediate_size, c.hidden_size);
  moe_ = attention_plan(c);
  moe_.moe = true;
  add(moe_, "mlp.gate.weight", {c.n_routed_experts, c.hidden_size}, TensorRole::kRouter);
  if (c.method == RouterMethod::kNoauxTc) {
    add(moe_, "mlp.gate.e_score_correction_bias", {c.n_routed_experts}, TensorRole::kRouterBias);
  }
  if (c.n_shared_experts > 0) {
    add_mlp(moe_, "mlp.shared_experts.", c.n_shared_experts * c.moe_intermediate_size,
            c.hidden_size);
  }
  add_mlp(expert_, "", c.moe_intermediate_size, c.hidden_size);
  for (TensorSlot& slot : expert_.slots) slot.kind = "mlp.experts.*." + slot.stem;
  mtp_ = c.is_moe_layer(layers_) ? moe_ : dense_;
  add(mtp_, "eh_proj.weight", {c.hidden_size, 2 * c.hidden_size}, TensorRole::kMtp);
  for (const char* norm : {"enorm.weight", "hnorm.weight", "shared_head.norm.weight"}) {
    add(mtp_, norm, {c.hidden_size}, TensorRole::kNorm);
  }
  for (const char* copy : {"embed_tokens.weight", "shared_head.head.weight"}) {
    add(mtp_, copy, {c.vocab_size, c.hidden_size}, TensorRole::kEmbedding, false);
  }
  for (LayerPlan* plan : {&outside_, &dense_, &moe_, &mtp_, &expert_}) sort(*plan);
}

const LayerPlan& ExpectedTensors::layer(std::int64_t layer) const {
  if (layer >= layers_) return mtp_;
  return config_.is_moe_layer(layer) ? moe_ : dense_;
}

TensorName split_name(std::string_view name) {
  TensorName out;
  if (name.ends_with(kScaleEnding)) {
    out.scale = true;
    name.remove_suffix(kScaleEnding.size());
  }
  out.stem = name;
  if (!name.starts_with(kLayerPrefix)) return out;
  std::string_view rest = name.substr(kLayerPrefix.size());
  const std::int64_t layer = take_number(rest);
  if (layer < 0) return out;
  out.layer = layer;
  out.stem = rest;
  if (!rest.starts_with(kExpertPrefix)) return out;
  std::string_view inner = rest.substr(kExpertPrefix.size());
  const std::int64_t expert = take_number(inner);
  if (expert < 0) return out;
  out.expert = expert;
  out.stem = inner;
  return out;
}

std::string join_name(std::int64_t layer, std::int64_t expert, std::string_view stem) {
  if (layer < 0) return std::string(stem);
  if (expert < 0) return fmt::format("model.layers.{}.{}", layer, stem);
  return fmt::format("model.layers.{}.mlp.experts.{}.{}", layer, expert, stem);
}

TensorSurvey::TensorSurvey(const ExpectedTensors& expected,
                           const std::vector<Checkpoint::Entry>& entries)
    : expected_(expected), entries_(entries) {
  std::size_t size = 0;
  for (std::int64_t at = -1; at < expected.layers(); ++at) {
    const LayerPlan& plan = at < 0 ? expected.outside() : expected.layer(at);
    begin_.push_back(size);
    size += plan.slots.size();
    if (at < 0) continue;
    expert_begin_.push_back(size);
    if (plan.moe) {
      size += static_cast<std::size_t>(expected.experts()) * expected.expert().slots.size();
    }
  }
  places_.resize(size);
  std::mutex collecting;
  // Names are there once, so no two entries write to the same place.
  for_ranges(entries.size(), kNamesPerThread, [&](std::size_t begin, std::size_t end) {
    std::vector<std::int32_t> unknown;
    for (std::size_t i = begin; i < end; ++i) {
      const TensorName name = split_name(entries[i].tensor->name);
      const auto number = static_cast<std::int32_t>(i);
      const std::size_t at = place_of(name);
      if (at == places_.size()) {
        unknown.push_back(number);
      } else {
        (name.scale ? places_[at].scale : places_[at].weight) = number;
      }
    }
    const std::lock_guard<std::mutex> lock(collecting);
    unknown_.insert(unknown_.end(), unknown.begin(), unknown.end());
  });
  std::sort(unknown_.begin(), unknown_.end());
}

std::size_t TensorSurvey::place_of(const TensorName& name) const {
  const std::size_t none = places_.size();
  if (name.layer >= expected_.layers()) return none;
  const LayerPlan& plan = name.layer < 0 ? expected_.outside() : expected_.layer(name.layer);
  if (name.expert < 0) {
    const int slot = plan.find(name.stem);
    if (slot < 0) return none;
    return begin_[static_cast<std::size_t>(name.layer + 1)] + static_cast<std::size_t>(slot);
  }
  if (!plan.moe || name.expert >= expected_.experts()) return none;
  const int slot = expected_.expert().find(name.stem);
  if (slot < 0) return none;
  return expert_begin_[static_cast<std::size_t>(name.layer)] +
         static_cast<std::size_t>(name.expert) * expected_.expert().slots.size() +
         static_cast<std::size_t>(slot);
}

}  // namespace ds::check
