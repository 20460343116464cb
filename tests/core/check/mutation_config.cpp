// config.json, alone and beside a tokenizer, and generation_config.json.
#include <fmt/format.h>

#include "tests/core/check/mutation.h"

namespace ds::test {
namespace {

using nlohmann::json;

void add_document(MutationGroup& group, const std::shared_ptr<SpoiltFolder>& folder,
                  const char* file, const json& document,
                  const std::function<bool(const std::string&)>& skip = {}) {
  const auto add = [&](const std::string& subject, const std::string& change,
                       const std::string& text) {
    group.mutations.push_back(
        {subject, change, {file, "", subject}, [=] { return folder->with(file, text); }});
  };
  each_json_change(document, skip,
                   [&](const std::string& path, const std::string& change, const json& changed) {
                     add(path, change, changed.dump());
                   });
  json chosen = document;
  for (const auto& [key, value] : document.items()) {
    if (skip && skip(key)) chosen.erase(key);
  }
  each_key_change(document,
                  [&](const std::string& key, const std::string& change, const std::string& text) {
                    if (chosen.contains(key)) add(key, change, text);
                  });
}

}  // namespace

MutationGroup config_mutations() {
  const Model model = sound_model();
  const auto folder = model_folder(model);
  MutationGroup group{
      "config.json", "each key of an FP8 model's config.json", folder->sound(), {}, {}, {}};
  add_document(group, folder, "config.json", model.config);
  // What no number may be; and no number of a required key.
  constexpr const char* kNone = "text|boolean|list|object|zero|negative|with a fraction|huge";
  constexpr const char* kNoNumber = "text|boolean|list|object|negative|with a fraction|huge";
  constexpr const char* kNoReal = "text|boolean|list|object|zero|negative";
  constexpr const char* kNoText = "number|boolean|list|object|changed|empty";
  constexpr const char* kNoFlag = "text|number|list|object";
  constexpr const char* kRequired =
      "hidden_size|intermediate_size|kv_lora_rank|moe_intermediate_size|num_hidden_layers|"
      "qk_nope_head_dim|qk_rope_head_dim|v_head_dim|vocab_size|n_group|num_experts_per_tok|"
      "topk_group|num_attention_heads";
  constexpr const char* kChanged = "one more|one less|twice";
  const Place any_key{"", "", "*"};
  const Place architectures{"", "", "architectures"};
  const Place factor{"", "", "rope_scaling.factor"};
  group.caught = {
      {"*", "written twice", "config-syntax", any_key},
      {"architectures", "removed|null|empty", "default-used"},
      {"architectures.0", "removed", "default-used", architectures},
      {"architectures", "text", "other-architecture"},
      {"architectures.0|model_type", "changed", "other-architecture", architectures},
      {"architectures", "number|boolean|object", "config-key"},
      {"architectures.0", "null|number|boolean|list|object", "config-key", architectures},
      {"model_type", "number|boolean|list|object", "config-key"},
      {kRequired, kNone, "config-key"},
      {kRequired, "removed|null|key misspelt", "config-key"},
      {"qk_rope_head_dim", "one more|one less", "config-key"},
      {"n_group", "one more", "config-key", any_key},
      {"topk_group", "one less", "config-key"},
      {"num_attention_heads", kChanged, "config-dimension config-key"},
      {"n_routed_experts", "null|zero|twice", "config-dimension"},
      {"n_routed_experts", "one more|one less", "config-key", any_key},
      {"n_routed_experts", "*", "config-key"},
      {"*_size|kv_lora_rank|*_head_dim|num_hidden_layers", kChanged, "config-dimension"},
      {"first_k_dense_replace|q_lora_rank", "removed", "config-dimension default-used"},
      {"first_k_dense_replace", "null", "config-dimension default-used"},
      {"first_k_dense_replace|q_lora_rank", kNoNumber, "config-key config-dimension"},
      {"n_shared_experts", kNoNumber, "config-key"},
      {"first_k_dense_replace|q_lora_rank", "key misspelt",
       "config-dimension default-used misspelt-key"},
      {"n_shared_experts", "removed", "default-used"},
      {"n_shared_experts", "key misspelt", "misspelt-key default-used", any_key},
      {"first_k_dense_replace|q_lora_rank|n_shared_experts", "*", "config-dimension"},
      {"attention_bias", "flipped", "config-dimension"},
      {"attention_bias|moe_layer_freq|scoring_func|topk_method|rope_scaling", "key misspelt",
       "misspelt-key", any_key},
      {"max_position_embeddings", "removed|null", "default-used rope-factor"},
      {"max_position_embeddings", kNone, "config-key rope-factor"},
      {"max_position_embeddings", "key misspelt", "default-used misspelt-key rope-factor"},
      {"max_position_embeddings", "*", "rope-factor", factor},
      {"num_nextn_predict_layers", kNoNumber, "config-key mtp-undeclared"},
      {"num_nextn_predict_layers", "one more|twice", "mtp-absent"},
      {"num_nextn_predict_layers", "key misspelt", "mtp-undeclared misspelt-key"},
      {"num_nextn_predict_layers", "*", "mtp-undeclared"},
      {"quantization_config", "removed|null", "fp8-undeclared"},
      {"quantization_config", "key misspelt", "fp8-undeclared misspelt-key"},
      {"quantization_config", "empty", "quantisation-method", any_key},
      {"quantization_config", "*", "quantisation-method fp8-undeclared"},
      {"*.activation_scheme", "*", "activation-scheme"},
      {"*.fmt", "null|number|boolean|list|object|changed|empty", "fp8-format"},
      {"*.quant_method", "*", "quantisation-method"},
      {"*.weight_block_size*",
       "*",
       "block-size",
       {"", "", "quantization_config.weight_block_size"}},
      {"rope_scaling", "text|number|boolean|list", "config-key"},
      {"rope_scaling", "empty", "rope-without-type", {"", "", "rope_scaling.type"}},
      {"rope_scaling.type", "removed|null", "rope-without-type"},
      {"rope_scaling.type", "*", "config-key", any_key},
      {"rope_scaling.*", "object", "config-key", {"", "", "rope_scaling"}},
      {"rope_scaling.original_max*", "removed|null", "default-used rope-factor"},
      {"rope_scaling.original_max*", kNone, "config-key"},
      {"rope_scaling.original_max*", "*", "rope-factor", factor},
      {"rope_scaling.*", "removed|null", "default-used"},
      {"rope_scaling.*", "text|boolean|list|object|negative", "config-key"},
      {"rope_scaling.factor", "zero", "config-key"},
      {"rope_scaling.factor", "*", "rope-factor"},
      {"rope_scaling.*", "huge", "unusual-value"},
      {"eos_token_id", "one less|zero", "unusual-value"},
      {"bos_token_id", "one more", "unusual-value", {"", "", "eos_token_id"}},
      {"rms_norm_eps|rope_theta|routed_scaling_factor", "huge", "unusual-value"},
      {"rms_norm_eps|rope_theta|routed_scaling_factor", kNoReal, "config-key"},
      {"norm_topk_prob", "flipped", "unusual-value"},
      {"tie_word_embeddings", "flipped", "tied-head"},
      {"torch_dtype", "changed", "dtype-key"},
      {"torch_dtype|model_type", "empty", "default-used"},
      {"torch_dtype", kNoFlag, "config-key"},
      {"torch_dtype", "boolean", "config-key"},
      {"hidden_act", "empty", "config-key default-used"},
      {"topk_method", "changed|empty", "config-key", {"", "", "scoring_func"}},
      {"hidden_act|scoring_func|topk_method", kNoText, "config-key"},
      {"attention_bias|norm_topk_prob|tie_word_embeddings", kNoFlag, "config-key"},
      {"moe_layer_freq|num_key_value_heads", kNone, "config-key"},
      {"moe_layer_freq|num_key_value_heads", kChanged, "config-key"},
      {"bos_token_id|eos_token_id", "text|boolean|object|negative|with a fraction|huge",
       "config-key"},
      {"bos_token_id", "list|one less", "config-key"},
      {"bos_token_id|eos_token_id|hidden_act|model_type|norm_topk_prob|num_key_value_heads|"
       "rms_norm_eps|rope_theta|routed_scaling_factor|tie_word_embeddings|torch_dtype|"
       "architectures",
       "key misspelt", "misspelt-key default-used", any_key},
      {"bos_token_id|eos_token_id", "removed", "default-used"},
      {"hidden_act|model_type|norm_topk_prob|num_key_value_heads|rms_norm_eps|rope_theta|"
       "routed_scaling_factor|tie_word_embeddings|torch_dtype",
       "removed|null", "default-used"},
  };
  return group;
}

}  // namespace ds::test
