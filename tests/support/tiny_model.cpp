#include "tests/support/tiny_model.h"

#include <fmt/format.h>

#include <cmath>
#include <deque>
#include <fstream>
#include <nlohmann/json.hpp>

#include "libcore/base/rng.h"
#include "libcore/io/safetensors.h"

namespace ds::test {

namespace {

constexpr std::int64_t kHidden = 64;
constexpr std::int64_t kHeads = 4;
constexpr std::int64_t kQLora = 32;
constexpr std::int64_t kKvLora = 16;
constexpr std::int64_t kNope = 16;
constexpr std::int64_t kRope = 8;
constexpr std::int64_t kValue = 16;
constexpr std::int64_t kExperts = 8;
constexpr std::int64_t kExpertWidth = 32;
constexpr std::int64_t kDenseWidth = 128;

class Writer {
 public:
  explicit Writer(std::uint64_t seed) : seed_(seed) {}

  // Normal values of the given deviation around `centre`.
  void add(const std::string& name, std::vector<std::int64_t> shape, float deviation,
           float centre = 0.0f) {
    std::int64_t size = 1;
    for (const std::int64_t extent : shape) size *= extent;
    std::vector<float>& values = storage_.emplace_back(static_cast<std::size_t>(size));
    const Rng rng(seed_, storage_.size());
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = centre + deviation * rng.normal(i);
    tensors_.push_back({name, DType::kF32, std::move(shape), values.data()});
  }
  void matrix(const std::string& name, std::int64_t out, std::int64_t in) {
    add(name + ".weight", {out, in}, 1.2f / std::sqrt(static_cast<float>(in)));
  }
  void norm(const std::string& name, std::int64_t size) {
    add(name + ".weight", {size}, 0.1f, 1.0f);
  }
  void mlp(const std::string& prefix, std::int64_t width) {
    matrix(prefix + "gate_proj", width, kHidden);
    matrix(prefix + "up_proj", width, kHidden);
    matrix(prefix + "down_proj", kHidden, width);
  }
  void write(const std::filesystem::path& path) {
    write_safetensors(path, tensors_, {{"format", "pt"}});
  }

 private:
  std::uint64_t seed_;
  std::deque<std::vector<float>> storage_;
  std::vector<TensorToWrite> tensors_;
};

void add_layer(Writer& writer, const TinyModel& tiny, std::int64_t layer) {
  const std::string prefix = fmt::format("model.layers.{}.", layer);
  const std::string attention = prefix + "self_attn.";
  writer.norm(prefix + "input_layernorm", kHidden);
  writer.norm(prefix + "post_attention_layernorm", kHidden);
  if (tiny.q_lora) {
    writer.matrix(attention + "q_a_proj", kQLora, kHidden);
    writer.norm(attention + "q_a_layernorm", kQLora);
    writer.matrix(attention + "q_b_proj", kHeads * (kNope + kRope), kQLora);
  } else {
    writer.matrix(attention + "q_proj", kHeads * (kNope + kRope), kHidden);
  }
  writer.matrix(attention + "kv_a_proj_with_mqa", kKvLora + kRope, kHidden);
  writer.norm(attention + "kv_a_layernorm", kKvLora);
  writer.matrix(attention + "kv_b_proj", kHeads * (kNope + kValue), kKvLora);
  writer.matrix(attention + "o_proj", kHidden, kHeads * kValue);
  if (tiny.attention_bias) {
    if (tiny.q_lora) writer.add(attention + "q_a_proj.bias", {kQLora}, 0.1f);
    writer.add(attention + "kv_a_proj_with_mqa.bias", {kKvLora + kRope}, 0.1f);
    writer.add(attention + "o_proj.bias", {kHidden}, 0.1f);
  }
  if (layer < 1) {
    writer.mlp(prefix + "mlp.", kDenseWidth);
    return;
  }
  writer.matrix(prefix + "mlp.gate", kExperts, kHidden);
  if (!tiny.v2) {
    writer.add(prefix + "mlp.gate.e_score_correction_bias", {kExperts}, 0.05f, tiny.bias_centre);
  }
  for (std::int64_t e = 0; e < kExperts; ++e) {
    writer.mlp(fmt::format("{}mlp.experts.{}.", prefix, e), kExpertWidth);
  }
  writer.mlp(prefix + "mlp.shared_experts.", tiny.shared_experts * kExpertWidth);
}

}  // namespace

std::string tiny_config(const TinyModel& tiny) {
  nlohmann::ordered_json config{
      {"architectures", {tiny.v2 ? "DeepseekV2ForCausalLM" : "DeepseekV3ForCausalLM"}},
      {"model_type", tiny.v2 ? "deepseek_v2" : "deepseek_v3"},
      {"vocab_size", kTinyVocab},
      {"hidden_size", kHidden},
      {"intermediate_size", kDenseWidth},
      {"moe_intermediate_size", kExpertWidth},
      {"num_hidden_layers", tiny.layers},
      {"first_k_dense_replace", 1},
      {"moe_layer_freq", 1},
      {"num_attention_heads", kHeads},
      {"num_key_value_heads", kHeads},
      {"n_routed_experts", kExperts},
      {"n_shared_experts", tiny.shared_experts},
      {"num_experts_per_tok", 2},
      {"n_group", tiny.groups},
      {"topk_group", 1},
      {"scoring_func", tiny.v2 ? "softmax" : "sigmoid"},
      {"topk_method", tiny.v2 ? "group_limited_greedy" : "noaux_tc"},
      {"norm_topk_prob", !tiny.v2},
      {"routed_scaling_factor", tiny.v2 ? 1.0 : 2.5},
      {"q_lora_rank", nullptr},
      {"kv_lora_rank", kKvLora},
      {"qk_nope_head_dim", kNope},
      {"qk_rope_head_dim", kRope},
      {"v_head_dim", kValue},
      {"rms_norm_eps", 1e-6},
      {"rope_theta", 10000},
      {"rope_scaling",
       {{"type", "yarn"},
        {"factor", 40},
        {"original_max_position_embeddings", 32},
        {"beta_fast", 32},
        {"beta_slow", 1},
        {"mscale", 1.0},
        {"mscale_all_dim", 1.0}}},
      {"max_position_embeddings", 1280},
      {"attention_bias", tiny.attention_bias},
      {"tie_word_embeddings", tiny.tied},
      {"num_nextn_predict_layers", tiny.mtp ? 1 : 0},
      {"hidden_act", "silu"},
      {"bos_token_id", 0},
      {"eos_token_id", 1},
      {"torch_dtype", "float32"}};
  if (tiny.q_lora) config["q_lora_rank"] = kQLora;
  return config.dump(2) + "\n";
}

void write_tiny_model(const std::filesystem::path& folder, const TinyModel& tiny) {
  std::filesystem::create_directories(folder);
  std::ofstream(folder / "config.json") << tiny_config(tiny);
  Writer writer(tiny.seed);
  writer.add("model.embed_tokens.weight", {kTinyVocab, kHidden}, 1.0f);
  for (std::int64_t layer = 0; layer < tiny.layers; ++layer) add_layer(writer, tiny, layer);
  if (tiny.mtp) {
    const std::string prefix = fmt::format("model.layers.{}.", tiny.layers);
    add_layer(writer, tiny, tiny.layers);
    writer.matrix(prefix + "eh_proj", kHidden, 2 * kHidden);
    writer.norm(prefix + "enorm", kHidden);
    writer.norm(prefix + "hnorm", kHidden);
    writer.norm(prefix + "shared_head.norm", kHidden);
  }
  writer.norm("model.norm", kHidden);
  if (!tiny.tied) writer.matrix("lm_head", kTinyVocab, kHidden);
  writer.write(folder / "model.safetensors");
}

}  // namespace ds::test
