#include "libcore/config/model_config.h"

#include <doctest/doctest.h>

#include <bit>
#include <fstream>
#include <functional>
#include <sstream>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "tests/support/paths.h"
#include "tests/support/variants.h"

using nlohmann::json;
using namespace ds;        // NOLINT
using namespace ds::test;  // NOLINT

namespace {

ModelConfig parse(const json& value) { return parse_model_config(value, "config.json"); }

// The message of the refusal; empty when the config was accepted.
std::string refusal(const json& value) {
  try {
    parse(value);
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kBadInput);
    return error.what();
  }
  return "";
}
std::string refusal_with(json value, const char* key, const json& bad) {
  value[key] = bad;
  return refusal(value);
}
bool has(const std::string& text, const char* part) { return text.find(part) != std::string::npos; }

}  // namespace

TEST_CASE("parameter totals of the five variants") {
  struct Row {
    json config;
    std::int64_t total, activated, without_embedding, without_both;
  };
  const std::vector<Row> rows = {
      {v2_json(), 235741434880, 21375800320, 20851512320, 20327224320},
      {v2_lite_json(), 15706484224, 2661150208, 2451435008, 2241719808},
      {v3_json(), 671026419200, 37552297472, 36625618432, 35698939392},
      {moonlight_json(), 15960110208, 2914776192, 2579231872, 2243687552},
      {kimi_k2_json(), 1026408232448, 32861500928, 31687095808, 30512690688}};
  for (const Row& row : rows) {
    const ModelConfig config = parse(row.config);
    const ParameterCounts counts = count_parameters(config);
    CHECK(counts.total() == row.total);
    CHECK(activated_parameters(config) == row.activated);
    CHECK(activated_parameters(config) - counts.embedding == row.without_embedding);
    CHECK(activated_parameters(config) - counts.embedding - counts.head == row.without_both);
  }
  const ParameterCounts v3 = count_parameters(parse(v3_json()));
  CHECK(v3.experts == 58LL * 256 * 44040192);
  CHECK(v3.attention == 61LL * 187105280);
  CHECK(static_cast<double>(v3.experts) / v3.total() == doctest::Approx(0.9745).epsilon(1e-4));
  json tied = v3_json();
  tied["tie_word_embeddings"] = true;
  CHECK(count_parameters(parse(tied)).head == 0);
}

TEST_CASE("every key of V3 and V2-Lite") {
  const ModelConfig v3 = parse(v3_json());
  CHECK(v3.model_class == ModelClass::kV3);
  CHECK(v3.scoring == RouterScoring::kSigmoid);
  CHECK(v3.method == RouterMethod::kNoauxTc);
  CHECK(v3.norm_topk_prob);
  CHECK(v3.routed_scaling_factor == 2.5);
  CHECK(v3.num_nextn_predict_layers == 1);
  CHECK(v3.q_head_dim() == 192);
  CHECK(v3.dtype == "bfloat16");
  CHECK(v3.quantization->quant_method == "fp8");
  CHECK(v3.yarn->factor == 40.0);
  CHECK_FALSE(v3.is_moe_layer(2));
  CHECK(v3.is_moe_layer(3));
  const ModelConfig lite = parse(v2_lite_json());
  CHECK(lite.model_class == ModelClass::kV2);
  CHECK(lite.q_lora_rank == 0);
  CHECK(lite.method == RouterMethod::kGreedy);
  CHECK_FALSE(lite.norm_topk_prob);
  CHECK(lite.bos_token_id == 100000);
  CHECK(lite.eos_token_ids == std::vector<std::int64_t>{100001});
  CHECK(parse(kimi_k2_json()).model_class == ModelClass::kV3);
}

TEST_CASE("both spellings, and what save_pretrained leaves out") {
  json config = v3_json();
  const json rope = config["rope_scaling"];
  for (const char* key : {"scoring_func", "topk_method", "moe_layer_freq", "rope_scaling",
                          "rope_theta", "torch_dtype"}) {
    config.erase(key);
  }
  config["head_dim"] = 64;
  config["dtype"] = "float32";
  config["rope_parameters"] = rope;
  config["rope_parameters"]["rope_theta"] = 20000;
  config["rope_parameters"]["rope_type"] = "yarn";
  config["rope_parameters"]["type"] = "linear";  // rope_type wins
  config["eos_token_id"] = {1, 2};
  config["pad_token_id"] = 2;
  const ModelConfig parsed = parse(config);
  CHECK(parsed.scoring == RouterScoring::kSigmoid);
  CHECK(parsed.method == RouterMethod::kNoauxTc);
  CHECK(parsed.rope_theta == 20000.0);
  CHECK(parsed.yarn->mscale_all_dim == 1.0);
  CHECK(parsed.dtype == "float32");
  CHECK(parsed.eos_token_ids == std::vector<std::int64_t>{1, 2});
  CHECK(parsed.pad_token_id == 2);

  config["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 500.5}};
  CHECK_FALSE(parse(config).yarn.has_value());
  CHECK(parse(config).rope_theta == 500.5);
  config["rope_scaling"] = nullptr;
  CHECK(parse(config).rope_theta == 500.5);

  json nulls = v3_json();
  nulls["rope_scaling"]["factor"] = nullptr;
  nulls["rope_scaling"]["beta_fast"] = 0;
  nulls["rope_scaling"].erase("beta_slow");
  nulls["eos_token_id"] = nullptr;
  nulls["bos_token_id"] = nullptr;
  nulls["pad_token_id"] = -1;
  CHECK(parse(nulls).yarn->factor == 40.0);  // 163840 / 4096
  CHECK(parse(nulls).yarn->beta_fast == 32.0);
  CHECK(parse(nulls).yarn->beta_slow == 1.0);
  CHECK(parse(nulls).eos_token_ids.empty());
  CHECK(parse(nulls).bos_token_id == -1);
  CHECK_FALSE(parse(nulls).pad_token_id.has_value());
  nulls["rope_scaling"].erase("original_max_position_embeddings");
  CHECK(parse(nulls).yarn->original_max_position == 163840);
  CHECK(parse(nulls).yarn->factor == 1.0);

  json softmax = v2_lite_json();
  softmax.erase("scoring_func");
  softmax.erase("topk_method");
  softmax["n_group"] = nullptr;
  CHECK(parse(softmax).scoring == RouterScoring::kSoftmax);
  CHECK(parse(softmax).n_group == 1);

  json dense = v3_json();
  dense["first_k_dense_replace"] = 100;
  CHECK(count_parameters(parse(dense)).experts == 0);
  dense["first_k_dense_replace"] = 0;
  CHECK(count_parameters(parse(dense)).mlp == 0);
  json mtp = v3_json();
  mtp.erase("num_nextn_predict_layers");
  mtp["num_mtp_layers"] = 1;
  CHECK(parse(mtp).num_nextn_predict_layers == 1);
}

TEST_CASE("other families are refused by name") {
  const auto of = [](const char* architecture, const char* type) {
    json config = v3_json();
    config["architectures"] = {architecture};
    config["model_type"] = type;
    return refusal(config);
  };
  CHECK(has(of("Qwen2ForCausalLM", "qwen2"), "'Qwen2ForCausalLM'"));
  CHECK(has(of("Qwen2ForCausalLM", "qwen2"), "distill"));
  CHECK(has(of("LlamaForCausalLM", "llama"), "'LlamaForCausalLM'"));
  CHECK(has(of("DeepseekV32ForCausalLM", "deepseek_v32"), "DeepSeek-V3.2"));
  CHECK(has(of("DeepseekV4ForCausalLM", "deepseek_v4"), "DeepSeek-V4"));
  CHECK(has(of("DeepseekForCausalLM", "deepseek"), "first generation"));
  CHECK(has(of("DeepseekVLV2ForCausalLM", "deepseek_vl_v2"), "vision"));
  CHECK(has(of("MistralForCausalLM", "mistral"), "'MistralForCausalLM'"));
  CHECK(has(of("DeepseekV3ForCausalLM", "deepseek_v32"), "deepseek_v32"));
  CHECK(has(of("DeepseekV3ForCausalLM", "deepseek_v2"), "deepseek_v2"));
  json kimi = {{"architectures", {"KimiK25ForConditionalGeneration"}},
               {"model_type", "kimi_k25"},
               {"text_config", v3_json()}};
  CHECK(has(refusal(kimi), "Kimi-K2.5"));
  CHECK(has(refusal({{"text_config", v3_json()}, {"model_type", "some_vl"}}), "vision"));
  CHECK(has(refusal({{"n_layers", 61}, {"dim", 7168}}), "inference"));
  CHECK(has(refusal(json::object()), "architectures"));
  CHECK(has(refusal(json::array()), "object"));
  CHECK(has(refusal_with(v3_json(), "index_topk", 2048), "DeepSeek-V3.2"));
  json by_type = v3_json();
  by_type.erase("architectures");
  CHECK(refusal(by_type) == "");
}

TEST_CASE("wrong values are refused naming the key") {
  CHECK(has(refusal_with(v3_json(), "moe_layer_freq", 2), "moe_layer_freq"));
  CHECK(has(refusal_with(v3_json(), "hidden_act", "gelu"), "gelu"));
  CHECK(has(refusal_with(v3_json(), "num_key_value_heads", 8), "num_key_value_heads"));
  CHECK(has(refusal_with(v3_json(), "qk_rope_head_dim", 63), "even"));
  CHECK(has(refusal_with(v3_json(), "hidden_size", -1), "hidden_size"));
  CHECK(has(refusal_with(v3_json(), "hidden_size", "7168"), "hidden_size"));
  CHECK(has(refusal_with(v3_json(), "hidden_size", nullptr), "hidden_size"));
  CHECK(has(refusal_with(v3_json(), "hidden_size", 1e300), "hidden_size"));
  CHECK(has(refusal_with(v3_json(), "num_hidden_layers", 4000000000LL), "num_hidden_layers"));
  CHECK(has(refusal_with(v3_json(), "n_group", 7), "n_group"));
  CHECK(has(refusal_with(v3_json(), "n_group", 256), "at least 2"));
  CHECK(has(refusal_with(v3_json(), "topk_group", 9), "topk_group"));
  CHECK(has(refusal_with(v3_json(), "num_experts_per_tok", 129), "num_experts_per_tok"));
  CHECK(has(refusal_with(v3_json(), "num_experts_per_tok", 0), "num_experts_per_tok"));
  CHECK(has(refusal_with(v3_json(), "scoring_func", "softmax"), "softmax"));
  CHECK(has(refusal_with(v2_json(), "scoring_func", "sigmoid"), "sigmoid"));
  CHECK(has(refusal_with(v2_json(), "norm_topk_prob", true), "norm_topk_prob"));
  CHECK(has(refusal_with(v3_json(), "rms_norm_eps", 0), "rms_norm_eps"));
  CHECK(has(refusal_with(v3_json(), "eos_token_id", "x"), "eos_token_id"));
  for (const char* type : {"linear", "dynamic", "longrope", "llama3"}) {
    json rope = {{"type", type}, {"factor", 2.0}};
    CHECK(has(refusal_with(v3_json(), "rope_scaling", rope), type));
  }
  json quantization = fp8_json();
  quantization["weight_block_size"] = {64, 128};
  CHECK(has(refusal_with(v3_json(), "quantization_config", quantization), "[64,128]"));
  quantization = {{"quant_method", "compressed-tensors"}};
  CHECK(has(refusal_with(v3_json(), "quantization_config", quantization), "compressed-tensors"));
  json huge = v3_json();
  for (const char* key : {"hidden_size", "intermediate_size", "moe_intermediate_size"}) {
    huge[key] = 1 << 24;
  }
  CHECK(has(refusal(huge), "10^15"));
  json crowd = v3_json();
  crowd["n_routed_experts"] = 65536;
  CHECK(has(refusal(crowd), "expert MLPs"));
  const json whole = v3_json();
  for (const auto& [key, value] : whole.items()) {
    json config = whole;
    config[key] = json::object({{"a", 1}});
    refusal(config);  // no crash, no other exception
    config[key] = json::array({1});
    refusal(config);
    config.erase(key);
    refusal(config);
  }
}

TEST_CASE("YaRN goldens of the five variants") {
  // Four f32 roundings of 6e-8 between the formula and the table.
  const auto close = [](double value, double wanted) {
    return std::abs(value - wanted) <= 2.5e-7 * std::abs(wanted);
  };
  const RopeSettings v3 = rope_settings(parse(v3_json()));
  CHECK(v3.softmax_scale == doctest::Approx(0.1352337788608801).epsilon(1e-15));
  CHECK(v3.attention_factor == 1.0);
  const std::vector<std::pair<int, double>> golden = {
      {0, 1.0},           {1, 7.4989421e-1},  {10, 5.6234133e-2}, {11, 3.9006927e-2},
      {16, 5.5e-3},       {19, 1.3705136e-3}, {20, 7.9056942e-4}, {21, 4.1499040e-4},
      {22, 1.7782794e-4}, {23, 3.3338036e-5}, {24, 2.5e-5},       {31, 3.3338036e-6}};
  for (const auto& [index, wanted] : golden) {
    CAPTURE(index);
    CHECK(close(v3.inv_freq[index], wanted));
  }
  const RopeSettings kimi = rope_settings(parse(kimi_k2_json()));
  CHECK(close(kimi.inv_freq[19], 1.6217599e-3));
  CHECK(close(kimi.inv_freq[20], 3.6140468e-5));
  CHECK(kimi.softmax_scale == doctest::Approx(0.13086079996295005).epsilon(1e-15));
  const RopeSettings moonlight = rope_settings(parse(moonlight_json()));
  CHECK(close(moonlight.inv_freq[31], 2.8046121e-5));
  CHECK(moonlight.softmax_scale == doctest::Approx(0.07216878364870322).epsilon(1e-15));
  const RopeSettings lite = rope_settings(parse(v2_lite_json()));
  CHECK(lite.softmax_scale == doctest::Approx(0.1147213867929261).epsilon(1e-15));
}

TEST_CASE("rotary tables equal the shared goldens bit for bit") {
  if (shared_dir().empty()) {
    MESSAGE("skipped: the shared goldens are not beside the checkout");
    return;
  }
  const json golden = parse_json_file(shared_dir() / "goldens" / "optim" / "yarn.json");
  CHECK(golden.size() == 11);
  for (const auto& [name, row] : golden.items()) {
    CAPTURE(name);
    json config = v3_json();
    for (const char* key : {"qk_rope_head_dim", "qk_nope_head_dim", "rope_theta", "rope_scaling"}) {
      config[key] = row[key];
    }
    const RopeSettings settings = rope_settings(parse(config));
    std::istringstream bits(row["inv_freq_bits"].get<std::string>());
    std::size_t index = 0;
    for (std::uint32_t wanted = 0; bits >> std::hex >> wanted; ++index) {
      CAPTURE(index);
      REQUIRE(index < settings.inv_freq.size());
      CHECK(std::bit_cast<std::uint32_t>(settings.inv_freq[index]) == wanted);
    }
    CHECK(index == settings.inv_freq.size());
    CHECK(settings.attention_factor == row["cos_sin_factor"].get<double>());
    CHECK(settings.softmax_scale ==
          doctest::Approx(row["softmax_scale"].get<double>()).epsilon(1e-15));
  }
  for (const char* name : {"tiny-v3", "tiny-v2", "tiny-v2-lite", "tiny-moonlight", "tiny-v3-fp8"}) {
    CAPTURE(name);
    CHECK_NOTHROW(load_model_config(shared_dir() / "goldens" / name / name));
  }
  const ModelConfig nano = load_model_config(shared_dir() / "models" / "nano-v3");
  CHECK(nano.n_routed_experts == 16);
  CHECK(nano.dtype == "bfloat16");
}

TEST_CASE("model names") {
  namespace fs = std::filesystem;
  const fs::path root = make_temp_dir("find-model");
  fs::create_directories(root / "models" / "nano");
  const fs::path hub = root / "home" / ".cache" / "huggingface" / "hub";
  const fs::path repository = hub / "models--org--name";
  fs::create_directories(repository / "snapshots" / "aaa");
  fs::create_directories(repository / "snapshots" / "bbb");
  fs::create_directories(repository / "refs");
  std::ofstream(repository / "refs" / "main") << "aaa";
  ModelSearchPaths paths;
  paths.deepseek_models = "/nonexistent:" + (root / "models").string();
  paths.home = (root / "home").string();
  CHECK(find_model((root / "models" / "nano").string(), paths) == root / "models" / "nano");
  CHECK(find_model("nano", paths) == root / "models" / "nano");
  CHECK(find_model("org/name", paths) == repository / "snapshots" / "aaa");
  fs::remove(repository / "refs" / "main");
  CHECK(find_model("org/name", paths).parent_path() == repository / "snapshots");
  paths.hf_home = (root / "other").string();
  fs::create_directories(root / "other" / "hub" / "models--x" / "snapshots" / "c");
  CHECK(find_model("x", paths).filename() == "c");
  try {
    find_model("org/absent", paths);
    CHECK(false);
  } catch (const Error& error) {
    const std::string text = error.what();
    CHECK(error.code() == ExitCode::kBadInput);
    CHECK(has(text, "/nonexistent/org/absent"));
    CHECK(has(text, "models--org--absent"));
    CHECK(has(text, (root / "other").c_str()));
  }
  std::ofstream(root / "file") << "x";
  CHECK_THROWS_AS(find_model((root / "file").string(), paths), Error);
  CHECK_THROWS_AS(load_model_config(root / "models" / "nano"), Error);
  fs::remove_all(root);
}
