#include "libcore/check/reconcile.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "libcore/io/safetensors_header.h"

namespace ds::check {
namespace {

constexpr std::int64_t kLayersLookedAt = 8192;
// What config.json itself may say (model_config.cpp): a shape may claim anything.
constexpr std::int64_t kLargestSize = std::int64_t{1} << 24;
constexpr std::int64_t kMostExpertMlps = 1'000'000;

// What the names alone say about each layer.
struct LayerFacts {
  bool present = false;
  bool router = false;    // mlp.gate.weight
  bool dense = false;     // mlp.gate_proj.weight
  bool predicts = false;  // eh_proj, enorm or hnorm
};

class Reconciler {
 public:
  Reconciler(const CheckpointTarget& target, const TensorSurvey& survey, Findings& findings)
      : target_(target), findings_(findings), config_(*target.config()) {
    survey.each([this](std::int64_t layer, std::int64_t expert, const TensorSlot& slot,
                       const TensorSurvey::Place& place) {
      if (place.weight >= 0 || place.scale >= 0) look(layer, expert, slot.stem);
    });
    for (const std::int32_t entry : survey.unknown()) {
      const TensorName name = split_name(survey.tensor(entry).name);
      look(name.layer, name.expert, name.stem);
    }
  }

  std::optional<ModelConfig> run() {
    layer_count();
    outside();
    attention();
    mlps();
    return changed_ ? std::optional(config_) : std::nullopt;
  }

 private:
  void look(std::int64_t layer, std::int64_t expert, std::string_view stem) {
    if (layer < 0 || layer >= kLayersLookedAt) return;
    const auto at = static_cast<std::size_t>(layer);
    if (at >= layers_.size()) layers_.resize(at + 1);
    LayerFacts& facts = layers_[at];
    facts.present = true;
    if (expert >= 0) return;
    facts.router = facts.router || stem == "mlp.gate.weight";
    facts.dense = facts.dense || stem == "mlp.gate_proj.weight";
    facts.predicts = facts.predicts || stem == "eh_proj.weight" || stem == "enorm.weight" ||
                     stem == "hnorm.weight";
  }

  std::string file() const { return target_.path_of("config.json"); }

  void contradict(const char* key, std::int64_t& value, std::int64_t implied,
                  const std::string& tensor, const std::string& shown) {
    if (implied == value || implied <= 0 || implied > kLargestSize) return;
    findings_.add("config-dimension", {.file = file(),
                                       .tensor = tensor,
                                       .key = key,
                                       .message = fmt::format("{}: {} is {}, but {} says {}",
                                                              file(), key, value, shown, implied),
                                       .found = std::to_string(value),
                                       .expected = std::to_string(implied)});
    value = implied;
    changed_ = true;
  }

  // Extent `axis` of a tensor of rank `rank`; nothing when it is absent or of another rank.
  std::optional<std::int64_t> extent(const std::string& name, std::size_t axis, std::size_t rank) {
    const auto entry = target_.inspection().checkpoint.find(name);
    if (entry.tensor == nullptr || entry.tensor->shape.size() != rank) return std::nullopt;
    return entry.tensor->shape[axis];
  }
  // The same of the first two layers that have it, when they agree.
  std::optional<std::int64_t> layer_extent(const std::string& stem, std::size_t axis,
                                           std::size_t rank) {
    std::optional<std::int64_t> first;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const std::string name = join_name(static_cast<std::int64_t>(l), -1, stem);
      const auto value = extent(name, axis, rank);
      if (!value) continue;
      if (!first) {
        first = value;
        tensor_ = name;
      } else {
        return *value == *first ? first : std::nullopt;
      }
    }
    return first;
  }
  void from_layers(const char* key, std::int64_t& value, const std::string& stem, std::size_t axis,
                   std::size_t rank, std::int64_t divisor = 1) {
    const auto implied = layer_extent(stem, axis, rank);
    if (!implied || *implied % divisor != 0) return;
    contradict(key, value, *implied / divisor, tensor_, shape_of(tensor_));
  }
  std::string shape_of(const std::string& tensor) {
    const auto entry = target_.inspection().checkpoint.find(tensor);
    return fmt::format("tensor \"{}\" of shape {}", tensor, shape_text(entry.tensor->shape));
  }

  void layer_count() {
    // The main layers end where the first prediction layer is.
    const auto first = std::find_if(layers_.begin(), layers_.end(),
                                    [](const LayerFacts& facts) { return facts.predicts; });
    const auto end =
        std::find_if(first, layers_.end(), [](const LayerFacts& facts) { return !facts.predicts; });
    const std::int64_t last = first - layers_.begin();
    const std::int64_t predicting = end - first;
    // Fewer layers than announced are missing layers; more, or prediction layers at another place,
    // contradict the number.
    if (last > config_.num_hidden_layers || (predicting > 0 && last != config_.num_hidden_layers)) {
      const bool whole = std::all_of(layers_.begin(), first,
                                     [](const LayerFacts& facts) { return facts.present; });
      if (whole) {
        contradict("num_hidden_layers", config_.num_hidden_layers, last, "",
                   fmt::format("the number of layers in the files, before {} prediction layers,",
                               predicting));
      }
    }
    const std::int64_t declared = config_.num_nextn_predict_layers;
    if (predicting < declared && target_.inspection().unreadable.empty()) {
      findings_.add("mtp-absent",
                    {.file = file(),
                     .key = "num_nextn_predict_layers",
                     .message = fmt::format(
                         "{}: num_nextn_predict_layers is {}, but the files have {} such layer{}",
                         file(), declared, predicting, predicting == 1 ? "" : "s"),
                     .found = std::to_string(declared),
                     .expected = std::to_string(predicting)});
      config_.num_nextn_predict_layers = predicting;
      changed_ = true;
    } else if (predicting > declared) {
      findings_.add(
          "mtp-undeclared",
          {.file = file(),
           .tensor = join_name(config_.num_hidden_layers, -1, "eh_proj.weight"),
           .key = "num_nextn_predict_layers",
           .message = fmt::format("{}: num_nextn_predict_layers is {}, but the files have {} "
                                  "prediction layer{}, from layer {} on",
                                  file(), declared, predicting, predicting == 1 ? "" : "s",
                                  config_.num_hidden_layers),
           .found = std::to_string(declared),
           .expected = std::to_string(predicting)});
      config_.num_nextn_predict_layers = predicting;
      changed_ = true;
    }
  }

  void outside() {
    const std::string embedding = "model.embed_tokens.weight";
    const auto rows = extent(embedding, 0, 2);
    const auto head = extent("lm_head.weight", 0, 2);
    if (rows && (!head || *head == *rows)) {
      contradict("vocab_size", config_.vocab_size, *rows, embedding, shape_of(embedding));
    }
    const auto columns = extent(embedding, 1, 2);
    const auto norm = extent("model.norm.weight", 0, 1);
    if (columns && (!norm || *norm == *columns)) {
      contradict("hidden_size", config_.hidden_size, *columns, embedding, shape_of(embedding));
    }
  }

  void attention() {
    const std::string a = "self_attn.";
    const auto q_rank = layer_extent(a + "q_a_layernorm.weight", 0, 1);
    if (q_rank) {
      contradict("q_lora_rank", config_.q_lora_rank, *q_rank, tensor_, shape_of(tensor_));
    } else if (config_.q_lora_rank > 0 && layer_extent(a + "q_proj.weight", 0, 2)) {
      findings_.add("config-dimension",
                    {.file = file(),
                     .tensor = tensor_,
                     .key = "q_lora_rank",
                     .message = fmt::format("{}: q_lora_rank is {}, but tensor \"{}\" says null",
                                            file(), config_.q_lora_rank, tensor_),
                     .found = std::to_string(config_.q_lora_rank),
                     .expected = "null"});
      config_.q_lora_rank = 0;
      changed_ = true;
    }
    from_layers("kv_lora_rank", config_.kv_lora_rank, a + "kv_a_layernorm.weight", 0, 1);
    const auto kv_a = layer_extent(a + "kv_a_proj_with_mqa.weight", 0, 2);
    if (kv_a) {
      contradict("qk_rope_head_dim", config_.qk_rope_head_dim, *kv_a - config_.kv_lora_rank,
                 tensor_, shape_of(tensor_));
    }
    heads(a);
    biases(a);
  }

  // Biases in all layers that have attention, or in none.
  void biases(const std::string& a) {
    std::int64_t with = 0;
    std::int64_t all = 0;
    for (std::size_t l = 0; l < layers_.size(); ++l) {
      const auto layer = static_cast<std::int64_t>(l);
      if (!extent(join_name(layer, -1, a + "o_proj.weight"), 0, 2)) continue;
      ++all;
      with += extent(join_name(layer, -1, a + "o_proj.bias"), 0, 1) ? 1 : 0;
    }
    if (all == 0 || with != (config_.attention_bias ? 0 : all)) return;
    findings_.add(
        "config-dimension",
        {.file = file(),
         .key = "attention_bias",
         .message = fmt::format("{}: attention_bias is {}, but {} of the {} layers in the files "
                                "have attention biases",
                                file(), config_.attention_bias, with == 0 ? "none" : "all", all),
         .found = config_.attention_bias ? "true" : "false",
         .expected = config_.attention_bias ? "false" : "true"});
    config_.attention_bias = !config_.attention_bias;
    changed_ = true;
  }

  // Three widths hang on four numbers, of which one may be wrong.
  void heads(const std::string& a) {
    const auto o = layer_extent(a + "o_proj.weight", 1, 2);
    const auto kv_b = layer_extent(a + "kv_b_proj.weight", 0, 2);
    const auto q =
        layer_extent(a + (config_.q_lora_rank > 0 ? "q_b_proj.weight" : "q_proj.weight"), 0, 2);
    if (!o || !kv_b || !q) return;
    struct Numbers {
      std::int64_t heads, nope, value;
    };
    const std::int64_t rope = config_.qk_rope_head_dim;
    const auto fits = [&](const Numbers& n) {
      return n.heads > 0 && n.nope > 0 && n.value > 0 && *o == n.heads * n.value &&
             *kv_b == n.heads * (n.nope + n.value) && *q == n.heads * (n.nope + rope);
    };
    const Numbers now{config_.num_attention_heads, config_.qk_nope_head_dim, config_.v_head_dim};
    if (fits(now)) return;
    const Numbers heads{*o / now.value, now.nope, now.value};
    const Numbers nope{now.heads, *q / now.heads - rope, now.value};
    const Numbers value{now.heads, now.nope, *o / now.heads};
    if (fits(heads)) {
      contradict("num_attention_heads", config_.num_attention_heads, heads.heads, tensor_,
                 shape_of(tensor_));
    } else if (fits(nope)) {
      contradict("qk_nope_head_dim", config_.qk_nope_head_dim, nope.nope, tensor_,
                 shape_of(tensor_));
    } else if (fits(value)) {
      contradict("v_head_dim", config_.v_head_dim, value.value, tensor_, shape_of(tensor_));
    }
  }

  void mlps() {
    from_layers("intermediate_size", config_.intermediate_size, "mlp.gate_proj.weight", 0, 2);
    if (config_.n_routed_experts == 0) {
      // The parser looked at no other setting of experts then.
      const auto width = layer_extent("mlp.experts.0.gate_proj.weight", 0, 2);
      if (!width || !layer_extent("mlp.gate.weight", 0, 2)) return;
      config_.moe_intermediate_size = *width;
      changed_ = true;
    }
    const auto experts = layer_extent("mlp.gate.weight", 0, 2);
    if (experts && *experts <= kMostExpertMlps / config_.num_hidden_layers) {
      contradict("n_routed_experts", config_.n_routed_experts, *experts, tensor_,
                 shape_of(tensor_));
    }
    from_layers("moe_intermediate_size", config_.moe_intermediate_size,
                "mlp.experts.0.gate_proj.weight", 0, 2);
    from_layers("n_shared_experts", config_.n_shared_experts, "mlp.shared_experts.gate_proj.weight",
                0, 2, config_.moe_intermediate_size);
    first_moe_layer();
  }

  void first_moe_layer() {
    const auto count =
        std::min(static_cast<std::size_t>(config_.num_hidden_layers), layers_.size());
    std::size_t first = 0;
    while (first < count && layers_[first].dense && !layers_[first].router) ++first;
    for (std::size_t l = first; l < count; ++l) {
      if (!layers_[l].router || layers_[l].dense) return;
    }
    const auto implied = static_cast<std::int64_t>(first);
    if (count == 0 ||
        std::min(config_.first_k_dense_replace, static_cast<std::int64_t>(count)) == implied) {
      return;
    }
    findings_.add(
        "config-dimension",
        {.file = file(),
         .key = "first_k_dense_replace",
         .message = fmt::format("{}: first_k_dense_replace is {}, but the first layer with "
                                "experts in the files is {}",
                                file(), config_.first_k_dense_replace, implied),
         .found = std::to_string(config_.first_k_dense_replace),
         .expected = std::to_string(implied)});
    config_.first_k_dense_replace = implied;
    changed_ = true;
  }

  const CheckpointTarget& target_;
  Findings& findings_;
  ModelConfig config_;
  bool changed_ = false;
  std::vector<LayerFacts> layers_;
  std::string tensor_;  // the one the last layer_extent() found
};

}  // namespace

std::optional<ModelConfig> reconcile(const CheckpointTarget& target, const TensorSurvey& survey,
                                     Findings& findings) {
  return Reconciler(target, survey, findings).run();
}

}  // namespace ds::check
