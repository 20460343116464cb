// adapter_config.json and the adapter's tensors, against the tiny model.
#include <fmt/format.h>

#include "tests/core/check/adapter_fixture.h"
#include "tests/core/check/mutation.h"

namespace ds::test {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

std::vector<check::Finding> check_adapter_folder(const fs::path& root) {
  static const ModelConfig kBase = parse_model_config(json::parse(tiny_config({})), "config.json");
  check::Findings findings;
  check::check_adapter(root, &kBase, true, findings);
  return findings.sorted();
}

std::shared_ptr<SpoiltFolder> adapter_folder(const Adapter& adapter) {
  auto folder = std::make_shared<SpoiltFolder>(check_adapter_folder);
  adapter.write(folder->root());
  return folder;
}

// The settings that PEFT writes, at the values of a plain LoRA.
json full_config(json config) {
  config.update({{"alora_invocation_tokens", nullptr},
                 {"arrow_config", nullptr},
                 {"auto_mapping", nullptr},
                 {"corda_config", nullptr},
                 {"ensure_weight_tying", false},
                 {"eva_config", nullptr},
                 {"exclude_modules", nullptr},
                 {"fan_in_fan_out", false},
                 {"inference_mode", true},
                 {"init_lora_weights", true},
                 {"layer_replication", nullptr},
                 {"layers_pattern", nullptr},
                 {"layers_to_transform", nullptr},
                 {"loftq_config", json::object()},
                 {"lora_bias", false},
                 {"megatron_config", nullptr},
                 {"megatron_core", "megatron.core"},
                 {"modules_to_save", nullptr},
                 {"peft_version", "0.18.0"},
                 {"qalora_group_size", 16},
                 {"revision", nullptr},
                 {"target_parameters", nullptr},
                 {"trainable_token_indices", nullptr},
                 {"use_bdlora", nullptr},
                 {"use_dora", false},
                 {"use_qalora", false},
                 {"use_rslora", false}});
  config["rank_pattern"] = {{"0.self_attn.o_proj", 4}};
  config["alpha_pattern"] = {{"0.self_attn.o_proj", 8}};
  return config;
}

}  // namespace

MutationGroup adapter_config_mutations() {
  Adapter adapter = sound_adapter();
  adapter.config = full_config(adapter.config);
  const auto folder = adapter_folder(adapter);
  const char* file = "adapter_config.json";
  MutationGroup group{file, "each key", folder->sound(), {}, {}, {}};
  const auto add = [&](const std::string& subject, const std::string& change,
                       const std::string& text) {
    group.mutations.push_back(
        {subject, change, {file, "", subject}, [=] { return folder->with(file, text); }});
  };
  each_json_change(adapter.config, {},
                   [&](const std::string& path, const std::string& change, const json& changed) {
                     add(path, change, changed.dump());
                   });
  each_key_change(adapter.config, add);
  const std::string text = adapter.config.dump();
  add("all", "cut", text.substr(0, text.size() / 2));
  add("all", "empty", "");
  add("all", "list", "[]");
  add("all", "no UTF-8", text.substr(0, 2) + "\xff" + text.substr(2));
  group.mutations.push_back(
      {"all", "removed", {file, "", ""}, [=] { return folder->without(file); }});
  const Place any_key{"", "", "*"};
  constexpr const char* kUnset =
      "alora_invocation_tokens|arrow_config|corda_config|eva_config|layer_replication|"
      "megatron_config|use_bdlora|loftq_config|lora_bias|use_qalora|bias";
  group.caught = {
      {"all", "removed", "adapter-config-missing", any_key},
      {"all", "*", "adapter-config-syntax", any_key},
      {"*", "written twice", "adapter-config-syntax", any_key},
      {"peft_type", "*", "adapter-type"},
      {"task_type", "key misspelt", "adapter-task adapter-misspelt-key"},
      {"task_type", "*", "adapter-task"},
      {"r", "key misspelt", "adapter-default adapter-misspelt-key adapter-rank expert-ranks"},
      {"r", "removed|null", "adapter-default adapter-rank expert-ranks"},
      {"r", "one more|one less|twice", "expert-ranks adapter-rank"},
      {"r", "huge", "adapter-value adapter-scale"},
      {"r", "*", "adapter-value"},
      {"lora_alpha", "key misspelt", "adapter-default adapter-misspelt-key"},
      {"lora_alpha", "removed|null", "adapter-default"},
      {"lora_alpha", "zero|negative|huge", "adapter-scale"},
      {"base_model_name_or_path", "key misspelt", "base-name adapter-misspelt-key"},
      {"base_model_name_or_path", "removed|null|empty", "base-name"},
      {"base_model_name_or_path", "number|boolean|list|object", "base-name adapter-value"},
      {"target_modules", "key misspelt", "adapter-value adapter-misspelt-key", any_key},
      {"*", "key misspelt", "adapter-misspelt-key", any_key},
      {"bias", "null|object", "uncommon-setting"},
      {kUnset, "text|number|boolean|list|flipped|changed|empty", "uncommon-setting"},
      {"fan_in_fan_out", "text|number|list|flipped", "fan-in-fan-out"},
      {"modules_to_save|trainable_token_indices", "text|number|boolean|list", "extra-weights"},
      {"layers_to_transform", "number", "layers-beyond-base targets-match-nothing"},
      {"target_modules", "text", "targets-match-nothing"},
      {"target_modules.?",
       "changed",
       "targets-match-nothing weights-without-target",
       {"", "", "target_modules"}},
      {"target_modules.0",
       "removed",
       "targets-match-nothing weights-without-target",
       {"", "", "target_modules"}},
      {"target_modules.?",
       "removed",
       "weights-without-target",
       {"adapter_model.safetensors", "", "*"}},
      {"target_modules", "removed|null|empty", "adapter-value", any_key},
      {"target_modules", "number|boolean|object", "adapter-value"},
      {"target_modules.?",
       "null|number|boolean|list|object|empty",
       "adapter-value",
       {"", "", "target_modules"}},
      {"rank_pattern.*",
       "one more|one less|twice",
       "adapter-rank",
       {"adapter_model.safetensors", "", "*"}},
      {"alpha_pattern|rank_pattern|layers_pattern|target_parameters|layers_to_transform|init_lora_"
       "weights|use_dora|use_rslora|lora_dropout|lora_alpha",
       "text|number|boolean|list", "adapter-value"},
      {"exclude_modules", "number|boolean|list", "adapter-value"},
      {"layers_to_transform|exclude_modules|init_lora_weights|use_dora|use_rslora|lora_dropout|"
       "lora_alpha",
       "object", "adapter-value"},
      {"lora_dropout", "negative|huge", "adapter-value"},
      {"alpha_pattern.*",
       "null|text|boolean|list|object|zero|negative",
       "adapter-value",
       {"", "", "alpha_pattern"}},
      {"rank_pattern.*",
       "null|text|boolean|list|object|zero|negative|with a fraction|huge",
       "adapter-value",
       {"", "", "rank_pattern"}},
      {"use_dora", "flipped", "dora-mlp"},
      {"use_rslora", "flipped", "rslora-experts"},
  };
  return group;
}

MutationGroup adapter_tensor_mutations() {
  const auto sound = std::make_shared<Adapter>(sound_adapter());
  const auto folder = adapter_folder(*sound);
  MutationGroup group{
      "adapter tensors", "each kind's dtype, shape, name and values", folder->sound(), {}, {}, {}};
  for (const char* module : {"1.self_attn.o_proj", "1.mlp.experts.0.gate_proj",
                             "1.mlp.experts.0.up_proj", "1.mlp.experts.0.down_proj"}) {
    for (const bool b : {false, true}) {
      const std::string name = b ? sound->b(module) : sound->a(module);
      const std::string subject = std::string(module).substr(2) + (b ? " lora_B" : " lora_A");
      const auto shape = sound->model.tensors.at(name).shape;
      const auto add = [&](const std::string& change, const std::string& tensor,
                           const std::function<void(Adapter&)>& spoil) {
        group.mutations.push_back({subject, change, {kAdapterFile, tensor, ""}, [=] {
                                     Adapter spoilt = *sound;
                                     spoil(spoilt);
                                     spoilt.write(folder->root());
                                     auto findings = check_adapter_folder(folder->root());
                                     sound->write(folder->root());
                                     return findings;
                                   }});
      };
      const auto tensor = [&](const std::string& change,
                              const std::function<void(ModelTensor&)>& spoil) {
        add(change, name, [=](Adapter& a) { spoil(a.model.at(name)); });
      };
      add("removed", b ? sound->a(module) : sound->b(module),
          [=](Adapter& a) { a.model.tensors.erase(name); });
      for (const char* dtype : {"F64", "BF16", "F16", "F8_E4M3", "F8_E5M2", "I32", "I8", "U8"}) {
        add(std::string("dtype: ") + dtype, name,
            [=](Adapter& a) { a.model.set(name, dtype, shape); });
      }
      const auto reshape = [&](const std::string& change, std::vector<std::int64_t> changed) {
        if (changed == shape) return;
        add("shape: " + change, name, [=](Adapter& a) { a.model.set(name, "F32", changed); });
      };
      for (const std::size_t axis : {0, 1}) {
        const std::string what = (axis == 1) == b ? "rank" : "width";
        auto changed = shape;
        changed[axis] += 1;
        reshape(what + " one more", changed);
        changed[axis] -= 2;
        reshape(what + " one less", changed);
        changed[axis] = 2 * shape[axis];
        reshape(what + " twice", changed);
        changed[axis] = 0;
        reshape(what + " none", changed);
      }
      reshape("turned", {shape[1], shape[0]});
      reshape("one axis more", {1, shape[0], shape[1]});
      reshape("flat", {shape[0] * shape[1]});
      const auto rename = [&](const std::string& change, const std::string& to) {
        add("name: " + change, to, [=](Adapter& a) { a.model.rename(name, to); });
      };
      const std::string start = "base_model.model.";
      rename("no base_model.model.", name.substr(start.size()));
      rename("prefix twice", start + name);
      rename("one model. less", start + name.substr(start.size() + 6));
      rename("adapter's name in it", name.substr(0, name.size() - 6) + "default.weight");
      rename("layer 9", kAdapterPrefix + "9" + name.substr(kAdapterPrefix.size() + 1));
      rename("one letter more", [&] {
        std::string to = name;
        return to.insert(to.find("_proj") + 5, "s");
      }());
      rename("no .weight", name.substr(0, name.size() - 7));
      rename("lower case", [&] {
        std::string to = name;
        to[to.find("lora_") + 5] = b ? 'b' : 'a';
        return to;
      }());
      for (const auto& [what, value] : std::map<std::string, float>{
               {"NaN", NAN}, {"infinity", HUGE_VALF}, {"minus infinity", -HUGE_VALF}}) {
        for (const std::size_t at : {std::size_t{0}, std::size_t{17}}) {
          tensor("value: " + what,
                 [v = value, at](ModelTensor& t) { std::memcpy(t.data.data() + 4 * at, &v, 4); });
        }
      }
      tensor("value: all zero", [](ModelTensor& t) { t.data.assign(t.data.size(), '\0'); });
    }
  }
  const Place any_tensor{"", "*", ""};
  constexpr const char* kRanks = "shape: rank one more|shape: rank one less|shape: rank twice";
  group.caught = {
      {"*", "removed", "half-pair"},
      {"*", "dtype: F64|dtype: F8_*|dtype: I*|dtype: U8", "adapter-dtype"},
      {"self_attn.o_proj lora_A", kRanks, "adapter-rank pair-rank"},
      {"self_attn.o_proj lora_A", "shape: rank none", "adapter-rank empty-tensor pair-rank"},
      {"self_attn.o_proj lora_A", "shape: turned", "adapter-shape adapter-rank pair-rank"},
      {"self_attn.o_proj lora_A", "shape: *none", "adapter-shape empty-tensor"},
      {"self_attn.o_proj lora_A", "shape: *", "adapter-shape"},
      {"* lora_A", kRanks, "adapter-rank expert-ranks pair-rank"},
      {"* lora_A", "shape: rank none", "adapter-rank empty-tensor expert-ranks pair-rank"},
      {"* lora_A", "shape: turned", "adapter-shape adapter-rank expert-ranks pair-rank"},
      {"* lora_A", "shape: one axis more|shape: flat", "adapter-shape expert-ranks"},
      {"* lora_B", kRanks, "pair-rank", any_tensor},
      {"* lora_B", "shape: rank none", "empty-tensor pair-rank"},
      {"* lora_B", "shape: turned", "adapter-shape pair-rank"},
      {"*", "shape: width none", "adapter-shape empty-tensor"},
      {"*", "shape: *", "adapter-shape"},
      {"*", "name: no base_model.model.|name: prefix twice", "key-prefix"},
      {"*", "name: one model. less", "key-prefix half-pair"},
      {"*", "name: adapter's name in it", "adapter-name-in-key"},
      {"mlp.*", "name: one letter more", "key-unmatched half-pair some-expert-projections"},
      {"*", "name: layer 9|name: one letter more", "key-unmatched half-pair"},
      {"*", "name: no .weight|name: lower case", "full-weight half-pair"},
      {"*", "value: NaN|value: *infinity", "adapter-not-finite"},
      {"* lora_A", "value: all zero", "zero-lora-a"},
      {"* lora_B", "value: all zero", "partly-untrained"},
  };
  return group;
}

}  // namespace ds::test
