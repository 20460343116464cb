// Every rule on adapters, on a small adapter of the tiny model.
#include <doctest/doctest.h>

#include <algorithm>
#include <ctime>
#include <functional>
#include <set>

#include "libcore/check/adapter_keys.h"
#include "tests/core/check/adapter_fixture.h"

namespace {

using namespace ds;
using namespace ds::test;
using check::Finding;
using check::RuleGroup;
namespace fs = std::filesystem;
using nlohmann::json;

std::vector<Finding> run(const Adapter& adapter,
                         const std::function<void(const fs::path&)>& spoil = {},
                         bool with_base = true) {
  TempFolder folder("adapter");
  adapter.write(folder.root());
  if (spoil) spoil(folder.root());
  const ModelConfig base = parse_model_config(json::parse(tiny_config({})), "config.json");
  check::Findings findings;
  check::check_adapter(folder.root(), with_base ? &base : nullptr, true, findings);
  return findings.sorted();
}

struct Case {
  const char* rule;
  const char* place;
  std::function<void(Adapter&)> adapter;
  std::function<void(const fs::path&)> folder;
};

std::function<void(Adapter&)> config(const char* key, const json& value) {
  return [=](Adapter& a) { a.config[key] = value; };
}

const std::vector<Case>& cases() {
  static const std::vector<Case> kCases{
      {"adapter-config-missing", "adapter_config.json", [](Adapter& a) { a.config = nullptr; }, {}},
      {"adapter-config-syntax",
       "adapter_config.json",
       {},
       [](const fs::path& f) { write_text(f / "adapter_config.json", "{\"r\": 4"); }},
      {"adapter-config-syntax", "adapter_config.json", config("x", 1),
       [](const fs::path& f) { write_text(f / "adapter_config.json", "[]"); }},
      {"adapter-weights-missing",
       kAdapterFile,
       {},
       [](const fs::path& f) { fs::remove(f / kAdapterFile); }},
      {"adapter-pickle",
       "adapter_model.bin",
       {},
       [](const fs::path& f) { fs::rename(f / kAdapterFile, f / "adapter_model.bin"); }},
      {"adapter-type", "peft_type", config("peft_type", "IA3"), {}},
      {"adapter-task", "task_type", config("task_type", "SEQ_CLS"), {}},
      {"adapter-value", "", config("r", 0), {}},
      {"adapter-value", "", config("lora_alpha", "much"), {}},
      {"adapter-value", "", [](Adapter& a) { a.config.erase("target_modules"); }, {}},
      {"fan-in-fan-out", "fan_in_fan_out", config("fan_in_fan_out", true), {}},
      {"extra-weights", "modules_to_save", config("modules_to_save", {"lm_head"}), {}},
      {"extra-weights", "trainable_token_indices", config("trainable_token_indices", {1, 2}), {}},
      {"uncommon-setting", "lora_bias", config("lora_bias", true), {}},
      {"uncommon-setting", "bias", config("bias", "all"), {}},
      {"uncommon-setting", "layer_replication", config("layer_replication", {{0, 2}, {1, 3}}), {}},
      {"key-prefix",
       "base_model.model.layers",
       [](Adapter& a) {
         a.rename([](const std::string& name) {
           return "base_model.model." + name.substr(std::string("base_model.model.model.").size());
         });
       },
       {}},
      {"key-prefix",
       "language_model",
       [](Adapter& a) {
         a.rename([](const std::string& name) {
           return "base_model.model.language_model." +
                  name.substr(std::string("base_model.model.").size());
         });
       },
       {}},
      {"key-prefix",
       "base_model.model.base_model",
       [](Adapter& a) {
         a.rename([](const std::string& name) { return "base_model.model." + name; });
       },
       {}},
      {"key-matches-nothing",
       "q_proj",
       [](Adapter& a) {
         a.model.tensors.clear();
         a.pair("0.self_attn.q_proj", 64, 64);
       },
       {}},
      {"key-unmatched", "layers.7", [](Adapter& a) { a.pair("7.self_attn.o_proj", 64, 64); }, {}},
      {"adapter-name-in-key",
       "default",
       [](Adapter& a) {
         a.rename([](const std::string& name) {
           return name.substr(0, name.size() - 6) + "default.weight";
         });
       },
       {}},
      {"targets-match-nothing",
       "target_modules",
       config("target_modules", {"q_proj", "v_proj"}),
       {}},
      {"targets-match-nothing",
       "target_modules",
       config("target_modules", {"o_proj", "v_proj"}),
       {}},
      {"target-without-weights",
       "kv_a_proj_with_mqa",
       [](Adapter& a) { a.config["target_modules"].push_back("kv_a_proj_with_mqa"); },
       {}},
      {"weights-without-target",
       "kv_a_proj",
       [](Adapter& a) { a.pair("0.self_attn.kv_a_proj_with_mqa", 64, 24); },
       {}},
      {"half-pair",
       "o_proj.lora_A",
       [](Adapter& a) { a.model.tensors.erase(a.b("1.self_attn.o_proj")); },
       {}},
      {"adapter-shape",
       "o_proj.lora_B",
       [](Adapter& a) {
         a.model.set(a.b("1.self_attn.o_proj"), "F32", {63, 4});
       },
       {}},
      {"adapter-rank",
       "o_proj.lora_A",
       [](Adapter& a) { a.pair("1.self_attn.o_proj", 64, 64, 8); },
       {}},
      {"pair-rank",
       "o_proj.lora_A",
       [](Adapter& a) {
         a.model.set(a.b("1.self_attn.o_proj"), "F32", {64, 2});
       },
       {}},
      {"adapter-dtype",
       "o_proj.lora_A",
       [](Adapter& a) {
         a.model.set(a.a("1.self_attn.o_proj"), "F8_E4M3", {4, 64});
       },
       {}},
      {"full-weight",
       "lm_head",
       [](Adapter& a) {
         a.model.set("base_model.model.lm_head.weight", "F32", {300, 64}, kAdapterFile);
       },
       {}},
      {"fused-keys", "experts.lora_A", [](Adapter& a) { a.pair("1.mlp.experts", 32, 64, 32); }, {}},
      {"absorbed-kv-b",
       "kv_b_proj",
       [](Adapter& a) {
         for (const char* layer : {"0", "1", "2"}) {
           a.pair(std::string(layer) + ".self_attn.kv_b_proj", 16, 128);
         }
         a.config["target_modules"].push_back("kv_b_proj");
       },
       {}},
      {"mlp-leaf-targets",
       "target_modules",
       [](Adapter& a) { a.pair("1.mlp.shared_experts.up_proj", 64, 32); },
       {}},
      {"some-expert-projections",
       "target_modules",
       [](Adapter& a) {
         a.model.tensors.erase(a.a("1.mlp.experts.0.down_proj"));
         a.model.tensors.erase(a.b("1.mlp.experts.0.down_proj"));
       },
       {}},
      {"rslora-experts", "use_rslora", config("use_rslora", true), {}},
      {"dropout-experts", "lora_dropout", config("lora_dropout", 0.1), {}},
      {"dora-mlp", "use_dora", config("use_dora", true), {}},
      {"expert-ranks",
       "r",
       [](Adapter& a) {
         a.config["r"] = 8;
         a.config["rank_pattern"] = {
             {"o_proj", 4}, {"gate_proj", 4}, {"up_proj", 4}, {"down_proj", 4}};
       },
       {}},
      {"all-linear", "target_modules", config("target_modules", "all-linear"), {}},
      {"router-target", "mlp.gate", [](Adapter& a) { a.pair("1.mlp.gate", 64, 8); }, {}},
      {"pattern-unmatched", "rank_pattern", config("rank_pattern", {{"q_prjo", 4}}), {}},
      {"pattern-unmatched", "alpha_pattern", config("alpha_pattern", {{"layers.9.", 4}}), {}},
      {"layers-beyond-base",
       "layers_to_transform",
       config("layers_to_transform", {0, 1, 2, 3}),
       {}},
      {"adapter-not-finite",
       "o_proj.lora_B",
       [](Adapter& a) {
         const float nan = NAN;
         std::memcpy(a.model.at(a.b("1.self_attn.o_proj")).data.data() + 40, &nan, 4);
       },
       {}},
      {"adapter-untrained",
       "lora_B",
       [](Adapter& a) {
         for (auto& [name, tensor] : a.model.tensors) {
           if (name.find("lora_B") != std::string::npos) {
             tensor.data.assign(tensor.data.size(), '\0');
           }
         }
       },
       {}},
      {"partly-untrained",
       "o_proj.lora_B",
       [](Adapter& a) {
         std::string& data = a.model.at(a.b("1.self_attn.o_proj")).data;
         data.assign(data.size(), '\0');
       },
       {}},
      {"adapter-scale", "lora_alpha", config("lora_alpha", 0), {}},
      {"adapter-default", "lora_alpha", [](Adapter& a) { a.config.erase("lora_alpha"); }, {}},
      {"adapter-misspelt-key", "use_rlora", [](Adapter& a) { a.config["use_rlora"] = true; }, {}},
      {"zero-lora-a",
       "o_proj.lora_A",
       [](Adapter& a) {
         std::string& data = a.model.at(a.a("1.self_attn.o_proj")).data;
         data.assign(data.size(), '\0');
       },
       {}},
      {"base-name",
       "base_model_name_or_path",
       config("base_model_name_or_path", "/data/model"),
       {}},
  };
  return kCases;
}

}  // namespace

TEST_CASE("a sound adapter has no findings, with its base and without") {
  CHECK_MESSAGE(run(sound_adapter()).empty(), describe(run(sound_adapter())));
  CHECK(run(sound_adapter(), {}, false).empty());
}

TEST_CASE("each rule on adapters finds its spoilt adapter") {
  for (const Case& spoilt : cases()) {
    INFO(spoilt.rule);
    Adapter adapter = sound_adapter();
    if (spoilt.adapter) spoilt.adapter(adapter);
    const auto findings = run(adapter, spoilt.folder);
    REQUIRE_MESSAGE(find(findings, spoilt.rule) != nullptr, describe(findings));
    bool placed = false;
    for (const Finding& finding : findings) {
      if (finding.rule->name != spoilt.rule) continue;
      const std::string at = finding.file + " " + finding.tensor + " " + finding.key;
      placed = placed || at.find(spoilt.place) != std::string::npos;
    }
    CHECK_MESSAGE(placed, describe(findings));
  }
}

TEST_CASE("every rule on adapters has a case") {
  std::set<std::string> covered;
  for (const Case& spoilt : cases()) covered.insert(spoilt.rule);
  for (const check::Rule& rule : check::rules()) {
    if (of_other_form(rule)) continue;
    if (rule.group != RuleGroup::kAdapter) continue;
    CHECK_MESSAGE(covered.count(std::string(rule.name)) == 1, rule.name);
  }
}

TEST_CASE("the first pattern of the file counts, not the first by name") {
  Adapter adapter = sound_adapter();
  adapter.pair("1.self_attn.o_proj", 64, 64, 8);
  const std::string text = adapter.config.dump();
  const auto with_patterns = [&](const std::string& patterns) {
    std::string edited = text;
    const std::string empty = "\"rank_pattern\":{}";
    edited.replace(edited.find(empty), empty.size(), "\"rank_pattern\":" + patterns);
    return run(adapter, [&](const fs::path& f) { write_text(f / "adapter_config.json", edited); });
  };
  CHECK(find(with_patterns(R"({"layers.1.self_attn.o_proj":8,"a_proj|o_proj":4})"),
             "adapter-rank") == nullptr);
  CHECK(find(with_patterns(R"({"o_proj":4,"layers.1.self_attn.o_proj":8})"), "adapter-rank") !=
        nullptr);
}

TEST_CASE("a config of very many keys takes time by their number") {
  const auto seconds = [](int keys) {
    Adapter adapter = sound_adapter();
    for (int i = 0; i < keys; ++i) adapter.config["unknown" + std::to_string(i)] = 1;
    const std::clock_t begin = std::clock();
    run(adapter);
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  // 64 times the keys take about 64 times as long; it was above 600 times when members were
  // searched from the front.
  CHECK(seconds(64'000) < 256 * std::max(seconds(1000), seconds(1000)));
}

TEST_CASE("keys") {
  using check::AdapterPart;
  using check::split_adapter_key;
  const auto key =
      split_adapter_key("base_model.model.model.layers.0.self_attn.o_proj.lora_A.weight");
  CHECK(key.part == AdapterPart::kA);
  CHECK(key.module == "model.layers.0.self_attn.o_proj");
  CHECK(key.prefixed);
  CHECK(!key.named);
  CHECK(split_adapter_key("base_model.model.lm_head.lora_B.weight").prefixed);
  CHECK(split_adapter_key("base_model.model.model.embed_tokens.lora_embedding_A").embedding);
  CHECK(split_adapter_key("base_model.model.model.layers.0.self_attn.o_proj.lora_magnitude_vector")
            .part == AdapterPart::kMagnitude);
  CHECK(split_adapter_key("base_model.model.model.layers.1.mlp.experts.base_layer.lora_A.weight")
            .part == AdapterPart::kFused);
  CHECK(split_adapter_key("base_model.model.lm_head.weight").part == AdapterPart::kOther);
  CHECK(!split_adapter_key("model.layers.0.self_attn.o_proj.lora_A.weight").prefixed);
  CHECK(
      split_adapter_key("base_model.model.model.layers.0.self_attn.o_proj.lora_A.x.weight").named);
}
