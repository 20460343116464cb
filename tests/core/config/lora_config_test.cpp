#include "libcore/config/lora_config.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <ctime>
#include <nlohmann/json.hpp>
#include <set>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/config/path_regex.h"
#include "tests/support/paths.h"
#include "tests/support/variants.h"

using nlohmann::json;
using namespace ds;        // NOLINT
using namespace ds::test;  // NOLINT

namespace {

ModelConfig model_of(const json& value) { return parse_model_config(value, "config.json"); }
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

template <class Action>
std::string refusal(ExitCode code, Action action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(error.code() == code);
    return std::string(error.what()) + " | " + error.hint();
  }
  return "";
}

std::vector<LoraTarget> targets_for(const ModelConfig& model, const std::string& spelling,
                                    std::int64_t rank = 8) {
  LoraConfig lora;
  lora.r = rank;
  set_targets(lora, spelling, model);
  return match_targets(lora, model);
}
std::int64_t trainable(const ModelConfig& model, const std::string& spelling, std::int64_t rank) {
  std::int64_t sum = 0;
  for (const auto& [kind, count] : trainable_by_kind(targets_for(model, spelling, rank), false)) {
    sum += count;
  }
  return sum;
}
std::set<std::string> paths_of(const std::vector<LoraTarget>& targets) {
  std::set<std::string> out;
  for (const LoraTarget& target : targets) out.insert(target.module.path);
  return out;
}

// What the written config selects, with ranks and scalings, must be what was asked.
void check_round_trip(const LoraConfig& lora, const ModelConfig& model) {
  const auto targets = match_targets(lora, model);
  const std::string text = adapter_config_text(lora, targets, model);
  const auto again = match_targets(parse_lora_config(text, "adapter_config.json"), model);
  REQUIRE(again.size() == targets.size());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    CAPTURE(targets[i].module.path);
    CHECK(again[i].module.path == targets[i].module.path);
    CHECK(again[i].rank == targets[i].rank);
    CHECK(again[i].scaling == doctest::Approx(targets[i].scaling).epsilon(1e-15));
  }
}

}  // namespace

TEST_CASE("trainable parameters at rank 8 of the five variants") {
  struct Row {
    json config;
    std::int64_t attention, mlp, shared, experts, all;
  };
  const std::vector<Row> rows = {
      {v3_json(), 48503296, 1843200, 12828672, 3284140032, 3347315200},
      {v2_json(), 44759040, 417792, 11599872, 1507983360, 1564760064},
      {v2_lite_json(), 3552768, 311808, 3035136, 138018816, 144918528},
      {moonlight_json(), 3552768, 319488, 3035136, 138018816, 144926208},
      {kimi_k2_json(), 30513664, 614400, 13271040, 5096079360, 5140478464}};
  for (const Row& row : rows) {
    const ModelConfig model = model_of(row.config);
    CAPTURE(row.all);
    CHECK(trainable(model, "attention", 8) == row.attention);
    CHECK(trainable(model, "mlp", 8) == row.mlp);
    CHECK(trainable(model, "shared_experts", 8) == row.shared);
    CHECK(trainable(model, "experts", 8) == row.experts);
    const auto by_kind = trainable_by_kind(targets_for(model, "all"), false);
    CHECK(by_kind.at("attention") == row.attention);
    CHECK(by_kind.at("mlp") == row.mlp);
    CHECK(by_kind.at("shared_experts") == row.shared);
    CHECK(by_kind.at("experts") == row.experts);
    CHECK(by_kind.size() == 4);
    CHECK(trainable(model, "all", 8) == row.all);
    CHECK(trainable(model, "attention, mlp,shared_experts", 8) == row.all - row.experts);
  }
  const ModelConfig v3 = model_of(v3_json());
  CHECK(trainable(v3, "attention", 16) == 97006592);
  CHECK(trainable(v3, "experts,shared_experts", 16) == 6593937408);
  CHECK(trainable(v3, "attention,experts,shared_experts", 16) == 6690944000);
  CHECK(trainable(v3,
                  "layers.3.mlp.experts.7.gate_proj,layers.3.mlp.experts.7.up_proj,"
                  "layers.3.mlp.experts.7.down_proj",
                  16) == 442368);
}

TEST_CASE("the rank of a budget") {
  const ModelConfig v3 = model_of(v3_json());
  LoraConfig lora;
  set_targets(lora, "all", v3);
  CHECK(rank_for_budget(lora, v3, 0.003) == 4);
  CHECK(rank_for_budget(lora, v3, 0.0001) == 0);
  set_targets(lora, "attention", v3);
  CHECK(rank_for_budget(lora, v3, 0.000073) == 8);
  const double exact = 48503296.0 / 671026419200.0;  // the share of rank 8 itself is not below it
  CHECK(rank_for_budget(lora, v3, exact) == 7);
  CHECK(rank_for_budget(lora, v3, exact * (1 + 1e-9)) == 8);
  lora.rank_pattern = {{"o_proj", 64}};
  const std::int64_t rank = rank_for_budget(lora, v3, 0.003);
  const auto share = [&](std::int64_t r) {
    lora.r = r;
    std::int64_t sum = 0;
    for (const auto& [kind, count] : trainable_by_kind(match_targets(lora, v3), false))
      sum += count;
    return static_cast<double>(sum) / 671026419200.0;
  };
  CHECK(share(rank) < 0.003);
  CHECK(share(rank + 1) >= 0.003);
}

TEST_CASE("modules are listed in checkpoint order with their shapes") {
  const ModelConfig model = model_of(tiny_v3_json());
  const auto modules = list_modules(model);
  CHECK(modules.size() == 1 + 4 * 5 + 3 + 3 * 9 * 3 + 1);
  CHECK(modules.front().path == "model.embed_tokens");
  CHECK(modules.back().path == "lm_head");
  CHECK(modules[1].path == "model.layers.0.self_attn.q_a_proj");
  CHECK(modules[3].path == "model.layers.0.self_attn.kv_a_proj_with_mqa");
  CHECK(modules[3].in == 64);
  CHECK(modules[3].out == 24);
  CHECK(modules[6].path == "model.layers.0.mlp.gate_proj");
  CHECK(modules[14].path == "model.layers.1.mlp.experts.0.gate_proj");
  CHECK(modules[14].expert == 0);
  CHECK(modules[14].layer == 1);
  CHECK(modules[14 + 24].path == "model.layers.1.mlp.shared_experts.gate_proj");
  const auto lite = list_modules(model_of(v2_lite_json()));
  CHECK(lite[1].path == "model.layers.0.self_attn.q_proj");
  CHECK(lite[1].out == 3072);
}

TEST_CASE("spellings of --lora_target") {
  const ModelConfig model = model_of(tiny_v3_json());
  CHECK(targets_for(model, "mlp.experts.*.up_proj").size() == 3 * 8);
  CHECK(targets_for(model, "experts").size() == 3 * 8 * 3);
  CHECK(targets_for(model, "mlp").size() == 3);
  CHECK(targets_for(model, "gate_proj").size() == 1 + 3 * 9);
  CHECK(targets_for(model, "all").size() == list_modules(model).size() - 2);
  CHECK(targets_for(model, "all-linear").size() == list_modules(model).size() - 2);
  CHECK(targets_for(model, "lm_head,embed_tokens").size() == 2);
  CHECK(targets_for(model, "re:.*layers\\.[12]\\..*kv_b_proj").size() == 2);
  CHECK(targets_for(model, "shared_experts,experts,o_proj").size() == 9 + 72 + 4);
  LoraConfig lora;
  const auto usage = [&](const std::string& spelling) {
    return refusal(ExitCode::kUsage, [&] { set_targets(lora, spelling, model); });
  };
  const std::string q = usage("q_proj,v_proj");
  CHECK(has(q, "'q_proj'"));
  CHECK(has(q, "q_a_proj, q_b_proj"));
  CHECK(has(q, "kv_a_proj_with_mqa"));
  CHECK(has(usage("v_proj"), "nearest: kv_a_proj_with_mqa, kv_b_proj"));
  CHECK(has(usage("atention"), "attention"));
  CHECK(has(usage("mlp.gate"), "router"));
  CHECK(has(usage(""), "empty"));
  CHECK(has(usage("o_proj,,q_a_proj"), "empty"));
  CHECK(has(usage("re:nothing"), "matches no module"));
  CHECK(has(usage("re:(("), "not a regular expression"));
  CHECK(has(usage("re:"), "matches no module"));
  json dense = tiny_v3_json();
  dense["first_k_dense_replace"] = 4;
  CHECK(has(refusal(ExitCode::kUsage, [&] { set_targets(lora, "experts", model_of(dense)); }),
            "'experts'"));
}

TEST_CASE("PEFT's matching rules") {
  const ModelConfig model = model_of(tiny_v3_json());
  LoraConfig lora;
  lora.target_modules = {"o_proj", "q_a_proj"};
  lora.exclude_modules = {"layers.1.self_attn.o_proj"};
  CHECK(match_targets(lora, model).size() == 7);
  lora.exclude_modules.clear();
  lora.exclude_regex = ".*q_a_proj";
  CHECK(match_targets(lora, model).size() == 4);
  lora.exclude_regex.clear();

  // The layer is the first number, never the expert's.
  lora.target_modules = {"up_proj"};
  lora.layers_to_transform = {2};
  for (const auto& target : match_targets(lora, model)) CHECK(target.module.layer == 2);
  CHECK(match_targets(lora, model).size() == 9);
  // A whole path escapes the limit, as in PEFT.
  lora.target_modules = {"model.layers.0.self_attn.o_proj", "q_a_proj"};
  CHECK(paths_of(match_targets(lora, model)) ==
        std::set<std::string>{"model.layers.0.self_attn.o_proj",
                              "model.layers.2.self_attn.q_a_proj"});
  lora.layers_to_transform = {9};
  CHECK(has(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }), "layers 0..3"));
  lora.layers_to_transform.clear();

  // Patterns: the first in the given order wins; anchored at a dot and at the end.
  lora.target_modules = {"o_proj", "q_a_proj"};
  lora.r = 4;
  lora.alpha = 8;
  lora.rank_pattern = {{"layers.1.*o_proj", 2}, {"o_proj", 16}};
  lora.alpha_pattern = {{"model.layers.0.self_attn.o_proj", 4}};
  auto targets = match_targets(lora, model);
  CHECK(targets[0].rank == 4);
  CHECK(targets[1].rank == 16);
  CHECK(targets[1].scaling == 4.0 / 16);
  CHECK(targets[3].rank == 2);
  CHECK(targets[3].scaling == 4.0);
  lora.use_rslora = true;
  CHECK(match_targets(lora, model)[1].scaling == 4.0 / 4);
  lora.rank_pattern = {{"_proj", 2}};  // not at a dot: matches nothing
  CHECK(has(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }), "'_proj'"));
  CHECK_NOTHROW(match_targets(lora, model, Unmatched::kAllow));
  lora.rank_pattern = {{"o_proj|q_a_proj", 2}};
  CHECK(match_targets(lora, model)[0].rank == 2);
  lora.rank_pattern.clear();
  lora.alpha_pattern.clear();

  lora.target_modules = {"o_proj", "q_proj"};
  CHECK(has(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }), "'q_proj'"));
  CHECK(match_targets(lora, model, Unmatched::kAllow).size() == 4);
  lora.target_modules = {"q_proj"};
  CHECK(has(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model, Unmatched::kAllow); }),
            "q_a_proj"));

  lora.target_modules = {"o_proj"};
  lora.target_parameters = {"shared_experts.up_proj.weight", "layers.0.mlp.up_proj.weight"};
  lora.rank_pattern = {{"up_proj", 2}};  // PEFT matches parameters with their .weight: no effect
  targets = match_targets(lora, model, Unmatched::kAllow);
  CHECK(targets.size() == 8);
  for (const auto& target : targets) CHECK(target.rank == 4);
  lora.rank_pattern = {{"up_proj\\.weight", 2}};
  CHECK(match_targets(lora, model)[1].rank == 2);
  lora.rank_pattern.clear();
  lora.target_modules = {"up_proj"};
  CHECK(has(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }), "named twice"));
  lora.target_modules = {"o_proj"};
  lora.target_modules.clear();
  lora.target_parameters = {"mlp.experts.gate_up_proj"};
  lora.rank_pattern = {{".*\\.gate_up_proj", 6}};
  const auto fused = match_targets(lora, model);
  CHECK(fused.size() ==
        2 * static_cast<std::size_t>(model.n_routed_experts) *
            static_cast<std::size_t>(model.num_hidden_layers - model.first_k_dense_replace));
  CHECK(fused.front().rank == 6);
}

TEST_CASE("hostile regular expressions end") {
  const ModelConfig model = model_of(v3_json());
  LoraConfig lora;
  const auto start = std::chrono::steady_clock::now();
  for (const char* pattern :
       {"(.*)*(.*)*(.*)*(.*)*(.*)*x", "((a*)*)*((\\w*)*)*!", "((\\S+)+)+j!"}) {
    lora.target_regex = pattern;
    CHECK(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }) != "");
  }
  lora.target_regex = "(((.+)+)+)+[%&]";
  CHECK(has(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }), "step"));
  lora.target_regex = std::string(100000, '(');
  CHECK(has(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }), "bytes"));
  lora.target_regex = std::string(10000, '(') + std::string(10000, ')');
  CHECK(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }) != "");
  lora.target_regex = "(?R)";
  CHECK(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }) != "");
  lora.target_regex = "a{65535}{65535}";
  CHECK(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }) != "");
  lora.target_regex = "\xff";
  CHECK(refusal(ExitCode::kBadInput, [&] { match_targets(lora, model); }) != "");
  const std::chrono::duration<double> spent = std::chrono::steady_clock::now() - start;
  CHECK(spent.count() < 20.0);
  CHECK(PathRegex("a|bc", PathRegex::Anchor::kWhole, "x").matches("bc"));
  CHECK_FALSE(PathRegex("a|bc", PathRegex::Anchor::kWhole, "x").matches("bcd"));
  CHECK(PathRegex("c|b", PathRegex::Anchor::kTail, "x").matches("a.b"));
  CHECK_FALSE(PathRegex("b", PathRegex::Anchor::kTail, "x").matches("ab"));
}

TEST_CASE("thousands of names take little longer than one") {
  const std::vector<ModuleInfo> modules = list_modules(model_of(v3_json()));
  const auto seconds = [&](std::size_t names) {
    LoraConfig lora;
    lora.target_modules = {"o_proj"};
    for (std::size_t i = 0; i < names; ++i) {
      lora.target_parameters.push_back("m" + std::to_string(i));
    }
    const std::clock_t begin = std::clock();
    CHECK(match_targets(lora, modules, Unmatched::kAllow).size() == 61);
    return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
  };
  // Compared one by one with every expert, they took a hundred times as long.
  CHECK(seconds(4000) < 8 * std::max(seconds(1), seconds(1)));
}

TEST_CASE("adapter_config.json of both generations is read") {
  const std::string old = R"({"base_model_name_or_path":"m","bias":"none","fan_in_fan_out":false,
    "inference_mode":true,"init_lora_weights":true,"layers_pattern":null,"layers_to_transform":3,
    "lora_alpha":16,"lora_dropout":0.05,"modules_to_save":null,"peft_type":"LORA","r":4,
    "revision":null,"target_modules":["o_proj"],"task_type":"CAUSAL_LM",
    "rank_pattern":{"z":2,"a":3},"alpha_pattern":{"o_proj":1.5},"runtime_config":{"x":1},
    "exclude_modules":"re","kasa_config":null,"velora_config":null,"use_bdlora":null})";
  const LoraConfig lora = parse_lora_config(old, "f");
  CHECK(lora.r == 4);
  CHECK(lora.alpha == 16.0);
  CHECK(lora.dropout == 0.05);
  CHECK(lora.layers_to_transform == std::vector<std::int64_t>{3});
  CHECK(lora.rank_pattern.front().first == "z");  // the file's order
  CHECK(lora.alpha_pattern.front().second == 1.5);
  CHECK(lora.exclude_regex == "re");
  CHECK(lora.base_model_name_or_path == "m");
  CHECK(parse_lora_config(R"({"peft_type":"LORA","target_modules":"a.*"})", "f").target_regex ==
        "a.*");
  CHECK(parse_lora_config(R"({"peft_type":"LORA","target_modules":["a"]})", "f").r == 8);

  const json good = json::parse(old);
  const auto with = [&](const char* key, const json& value) {
    json changed = good;
    changed[key] = value;
    return refusal(ExitCode::kBadInput, [&] { parse_lora_config(changed.dump(), "f"); });
  };
  CHECK(has(with("peft_type", "IA3"), "IA3"));
  CHECK(has(with("bias", "all"), "bias"));
  CHECK(has(with("lora_bias", true), "lora_bias"));
  CHECK(has(with("modules_to_save", {"lm_head"}), "modules_to_save"));
  CHECK(has(with("trainable_token_indices", {1}), "trainable_token_indices"));
  CHECK(has(with("layer_replication", {{0, 1}}), "layer_replication"));
  CHECK(has(with("use_qalora", true), "use_qalora"));
  CHECK(has(with("alora_invocation_tokens", {5}), "alora_invocation_tokens"));
  CHECK(has(with("fan_in_fan_out", true), "fan_in_fan_out"));
  CHECK(has(with("init_lora_weights", "pissa"), "pissa"));
  CHECK(has(with("loftq_config", {{"bits", 4}}), "loftq_config"));
  CHECK(has(with("r", 0), "'r'"));
  CHECK(has(with("r", "8"), "r"));
  CHECK(has(with("lora_dropout", 1.0), "lora_dropout"));
  CHECK(has(with("target_modules", json::array()), "target_modules"));
  CHECK(has(with("target_modules", {1}), "target_modules"));
  CHECK(has(with("rank_pattern", {{"a", 0}}), "rank_pattern"));
  CHECK(has(with("rank_pattern", {{"a", 1.5}}), "rank_pattern"));
  CHECK(has(with("layers_to_transform", {-1}), "layers_to_transform"));
  CHECK(has(with("layers_pattern", "blocks"), "layers_pattern"));
  CHECK(with("init_lora_weights", "gaussian") == "");
  CHECK(has(refusal(ExitCode::kBadInput, [] { parse_lora_config("[1", "f"); }), "line 1"));
  for (const auto& [key, value] : good.items()) {
    for (const json& odd :
         {json(nullptr), json(1e300), json::array({1}), json::object({{"", ""}})}) {
      with(key.c_str(), odd);  // no crash, no other exception
    }
  }
}

TEST_CASE("the written config is exact and of the documented form") {
  const ModelConfig model = model_of(tiny_v3_json());
  LoraConfig lora;
  lora.r = 4;
  lora.alpha = 8;
  lora.dropout = 0.1;
  lora.base_model_name_or_path = "tiny-v3";
  set_targets(lora, "all", model);
  const std::string text = adapter_config_text(lora, match_targets(lora, model), model);
  CHECK(text.substr(0, 36) == "{\n  \"alora_invocation_tokens\": null,");
  CHECK(text.back() == '}');
  const json written = json::parse(text);
  CHECK(written.size() == 36);
  CHECK(written["lora_dropout"].dump() == "0.0");
  CHECK(written["lora_alpha"].dump() == "8");
  CHECK(written["r"] == 4);
  CHECK(written["target_modules"].size() == 5 + 24);
  CHECK(written["target_modules"][0] == "q_a_proj");
  CHECK(written["target_modules"][5] == "experts.0.gate_proj");
  CHECK(written["target_parameters"] ==
        json({"layers.0.mlp.gate_proj.weight", "layers.0.mlp.up_proj.weight",
              "layers.0.mlp.down_proj.weight", "shared_experts.gate_proj.weight",
              "shared_experts.up_proj.weight", "shared_experts.down_proj.weight"}));
  check_round_trip(lora, model);
  CHECK(adapter_compatibility_notes(lora, match_targets(lora, model)).empty());

  LoraConfig rslora = lora;
  rslora.use_rslora = true;
  const json plain = json::parse(adapter_config_text(rslora, match_targets(rslora, model), model));
  CHECK(plain["use_rslora"] == false);
  CHECK(plain["lora_alpha"] == 16);
  check_round_trip(rslora, model);
  set_targets(rslora, "attention", model);
  CHECK(json::parse(adapter_config_text(rslora, match_targets(rslora, model),
                                        model))["use_rslora"] == true);
  check_round_trip(rslora, model);

  // Only the attention's rank differs: r is the experts' rank.
  LoraConfig ranks = lora;
  ranks.r = 2;
  ranks.rank_pattern = {{".*experts\\.\\d+\\..*", 6}, {"shared_experts.up_proj", 3}};
  ranks.alpha_pattern = {{"layers.1.self_attn.o_proj", 5}};
  const json mixed = json::parse(adapter_config_text(ranks, match_targets(ranks, model), model));
  CHECK(mixed["r"] == 6);
  CHECK(mixed["rank_pattern"]["o_proj"] == 2);
  CHECK(mixed["rank_pattern"]["shared_experts\\.up_proj\\.weight"] == 3);
  check_round_trip(ranks, model);

  for (const char* spelling :
       {"attention", "mlp", "shared_experts", "experts", "o_proj,lm_head", "embed_tokens,kv_b_proj",
        "mlp.experts.*.down_proj", "mlp.experts.*.up_proj", "layers.2.mlp.experts.3.gate_proj",
        "re:.*layers\\.[13]\\..*", "layers.1.self_attn.o_proj"}) {
    CAPTURE(spelling);
    LoraConfig config = lora;
    set_targets(config, spelling, model);
    check_round_trip(config, model);
    config.use_dora = true;
    check_round_trip(config, model);
  }
  LoraConfig limited = lora;
  limited.layers_to_transform = {1, 3};
  check_round_trip(limited, model);
  const json spelled =
      json::parse(adapter_config_text(limited, match_targets(limited, model), model));
  CHECK(spelled["layers_to_transform"].is_null());
  CHECK(spelled["target_modules"][0] == "model.layers.1.self_attn.q_a_proj");
  CHECK(spelled["target_parameters"][0] == "model.layers.1.mlp.shared_experts.gate_proj.weight");

  set_targets(lora, "mlp.experts.*.up_proj", model);
  CHECK(adapter_compatibility_notes(lora, match_targets(lora, model)).size() == 1);
  set_targets(lora, "mlp.experts.*.down_proj", model);
  CHECK(adapter_compatibility_notes(lora, match_targets(lora, model)).empty());
  set_targets(lora, "all", model);
  lora.use_dora = true;
  CHECK(adapter_compatibility_notes(lora, match_targets(lora, model)).size() == 1);
  CHECK(refusal(ExitCode::kUsage, [&] { adapter_config_text(lora, {}, model); }) != "");
  check_round_trip(lora, model);
  const auto counts = trainable_by_kind(match_targets(lora, model), true);
  const auto without = trainable_by_kind(match_targets(lora, model), false);
  CHECK(counts.at("attention") - without.at("attention") == 4 * (32 + 96 + 24 + 128 + 64));
}

TEST_CASE("the shared goldens' adapters select the modules PEFT trained") {
  if (shared_dir().empty()) {
    MESSAGE("skipped: the shared goldens are not beside the checkout");
    return;
  }
  struct Case {
    const char* model;
    const char* adapter;
  };
  int compared = 0;
  for (const Case& entry :
       {Case{"tiny-v3", "all"}, Case{"tiny-v3", "rslora"}, Case{"tiny-v3", "dora"},
        Case{"tiny-v3", "patterns"}, Case{"tiny-v2", "all"}, Case{"tiny-v2-lite", "all"},
        Case{"tiny-moonlight", "all"}, Case{"tiny-v3-fp8", "not_routed"}}) {
    CAPTURE(entry.model);
    CAPTURE(entry.adapter);
    const auto root = shared_dir() / "goldens" / entry.model;
    const auto folder = root / "lora" / entry.adapter;
    if (!std::filesystem::exists(folder)) continue;
    const ModelConfig model = load_model_config(root / entry.model);
    const LoraConfig lora = load_lora_config(folder);
    const auto targets = match_targets(lora, model);
    const json golden = parse_json_file(folder / "golden.json");
    std::size_t tensors = 0;
    for (const LoraTarget& target : targets) {
      const std::string key = "base_model.model." + target.module.path + ".lora_";
      CAPTURE(key);
      CHECK(golden["trainable"][key + "A.weight"] == json({target.rank, target.module.in}));
      CHECK(golden["trainable"][key + "B.weight"] == json({target.module.out, target.rank}));
      tensors += lora.use_dora ? 3 : 2;
    }
    CHECK(golden["trainable"].size() == tensors);
    const auto by_kind = trainable_by_kind(targets, lora.use_dora);
    const std::map<std::string, const char*> names = {{"attention", "attention"},
                                                      {"dense_mlp", "mlp"},
                                                      {"routed_experts", "experts"},
                                                      {"shared_experts", "shared_experts"}};
    for (const auto& [kind, count] : golden["trainable_by_kind"].items()) {
      CAPTURE(kind);
      const auto found = by_kind.find(names.at(kind));
      CHECK(count == (found == by_kind.end() ? 0 : found->second));
    }
    check_round_trip(lora, model);
    ++compared;
  }
  CHECK(compared == 8);
  // The same keys as peft's own file.
  const auto folder = shared_dir() / "goldens" / "tiny-v3" / "lora" / "all";
  const ModelConfig model = load_model_config(shared_dir() / "goldens" / "tiny-v3" / "tiny-v3");
  const LoraConfig lora = load_lora_config(folder);
  json ours = json::parse(adapter_config_text(lora, match_targets(lora, model), model));
  json theirs = parse_json_file(folder / "adapter_config.json");
  for (const char* key : {"target_modules", "target_parameters"}) {
    ours.erase(key);
    theirs.erase(key);
  }
  CHECK(ours == theirs);
}
