// deepseek-convert adapter.
#include <cmath>
#include <set>

#include "libcore/io/gguf.h"
#include "tests/tools/convert/merge_fixture.h"

namespace {

using namespace ds::test;

const nlohmann::json kEverything{"q_a_proj",  "q_b_proj", "kv_a_proj_with_mqa",
                                 "kv_b_proj", "o_proj",   "gate_proj",
                                 "up_proj",   "down_proj"};
const std::string kExperts = "model.layers.1.mlp.experts";
constexpr std::int64_t kE = 8, kHidden = 64, kWidth = 32, kR = 4;

std::string tensors_of(const std::string& folder) {
  return read_text(folder + "/adapter_model.safetensors");
}
nlohmann::json config_of(const std::string& folder) {
  return nlohmann::json::parse(read_text(folder + "/adapter_config.json"));
}
std::vector<float> tensor(const ds::SafetensorsFile& file, const std::string& name) {
  const ds::TensorInfo* info = file.find(kPrefix + name);
  REQUIRE_MESSAGE(info != nullptr, name);
  std::vector<float> out;
  for (std::int64_t i = 0;
       i < static_cast<std::int64_t>(info->bytes()) / ds::kernels::dtype_size(info->dtype); ++i) {
    out.push_back(ds::adapter_value(file.data(*info), info->dtype, i));
  }
  return out;
}
ds::SafetensorsFile open_tensors(const std::string& folder) {
  return ds::SafetensorsFile::open(folder + "/adapter_model.safetensors");
}

// merge's weights with an adapter of the fixture.
std::string merged_bytes(const MergeFixture& f, const std::string& adapter) {
  convert_json({"merge", f.path("model"), f.path(adapter), f.path("merged"), "--force"});
  return read_text(f.path("merged") + "/model.safetensors");
}

void rewrite(const MergeFixture& f, const std::string& from, const std::string& to,
             const std::string& layout, bool with_model) {
  std::vector<std::string> arguments{"adapter", f.path(from), f.path(to), "--to", layout};
  if (with_model) arguments.insert(arguments.end(), {"--model", f.path("model")});
  convert_json(arguments);
}

TEST_CASE("per-expert tensors become fused ones and come back as they were") {
  const MergeFixture f;
  auto settings = lora_settings(kEverything, kR, 8);
  SUBCASE("LoRA") {}
  SUBCASE("rsLoRA") { settings["use_rslora"] = true; }
  SUBCASE("without a down_proj") {
    settings["target_modules"] = R"(.*\.(o_proj|experts\.\d+\.(gate|up)_proj))";
  }
  SUBCASE("with a down_proj alone") { settings["target_modules"] = R"(.*experts\.\d+\.down_proj)"; }
  write_adapter(f.path("plain"), settings, random_adapter(settings, f.config));
  for (const bool with_model : {true, false}) {
    const std::string fused = with_model ? "fused" : "fused-alone";
    const std::string back = with_model ? "back" : "back-alone";
    rewrite(f, "plain", fused, "peft_fused", with_model);
    rewrite(f, fused, back, "peft", with_model);
    CHECK(tensors_of(f.path(back)) == tensors_of(f.path("plain")));
    CHECK(merged_bytes(f, fused) == merged_bytes(f, "plain"));
    CHECK(merged_bytes(f, back) == merged_bytes(f, "plain"));
    const auto config = config_of(f.path(fused));
    CHECK(config.at("use_rslora") == false);
    CHECK(config.dump().find("experts.0.") == std::string::npos);
  }
  CHECK(tensors_of(f.path("fused")) == tensors_of(f.path("fused-alone")));
}

TEST_CASE("fused tensors are laid out as transformers 5 wraps them") {
  const MergeFixture f;
  const auto settings = lora_settings(kEverything, kR, 8);
  write_adapter(f.path("plain"), settings, random_adapter(settings, f.config));
  rewrite(f, "plain", "fused", "peft_fused", true);
  const auto plain = open_tensors(f.path("plain")), fused = open_tensors(f.path("fused"));
  const auto gate_up_a = tensor(fused, kExperts + ".base_layer.lora_A.weight");
  const auto gate_up_b = tensor(fused, kExperts + ".base_layer.lora_B.weight");
  const auto down_a = tensor(fused, kExperts + ".lora_A.weight");
  const auto down_b = tensor(fused, kExperts + ".lora_B.weight");
  REQUIRE(fused.find(kPrefix + kExperts + ".base_layer.lora_B.weight")->shape ==
          std::vector<std::int64_t>{2 * kWidth, 2 * kR * kE});
  REQUIRE(fused.find(kPrefix + kExperts + ".lora_A.weight")->shape ==
          std::vector<std::int64_t>{kE * kR, kWidth});
  const auto at = [](const std::vector<float>& values, std::int64_t cols, std::int64_t row,
                     std::int64_t col) {
    return values.at(static_cast<std::size_t>(row * cols + col));
  };
  for (std::int64_t e = 0; e < kE; ++e) {
    const std::string expert = kExperts + "." + std::to_string(e) + ".";
    const auto get = [&](const char* name) { return tensor(plain, expert + name); };
    const auto ga = get("gate_proj.lora_A.weight"), gb = get("gate_proj.lora_B.weight");
    const auto ua = get("up_proj.lora_A.weight"), ub = get("up_proj.lora_B.weight");
    const auto da = get("down_proj.lora_A.weight"), db = get("down_proj.lora_B.weight");
    for (std::int64_t k = 0; k < kR; ++k) {
      for (std::int64_t i = 0; i < kHidden; ++i) {
        CHECK(at(gate_up_a, kHidden, e * 2 * kR + k, i) == at(ga, kHidden, k, i));
        CHECK(at(gate_up_a, kHidden, e * 2 * kR + kR + k, i) == at(ua, kHidden, k, i));
        CHECK(at(down_b, kR * kE, i, k * kE + e) == at(db, kR, i, k));
      }
      for (std::int64_t i = 0; i < kWidth; ++i) {
        const std::int64_t cols = 2 * kR * kE;
        CHECK(at(gate_up_b, cols, i, k * kE + e) == at(gb, kR, i, k));
        CHECK(at(gate_up_b, cols, i, (kR + k) * kE + e) == 0.0f);
        CHECK(at(gate_up_b, cols, kWidth + i, k * kE + e) == 0.0f);
        CHECK(at(gate_up_b, cols, kWidth + i, (kR + k) * kE + e) == at(ub, kR, i, k));
        CHECK(at(down_a, kWidth, e * kR + k, i) == at(da, kWidth, k, i));
      }
    }
  }
  const auto config = config_of(f.path("fused"));
  CHECK(config.at("r") == kR);
  CHECK(config.at("rank_pattern") == nlohmann::json{{R"(mlp\.experts\.gate_up_proj)", 2 * kR}});
  CHECK(config.at("alpha_pattern") == nlohmann::json{{R"(mlp\.experts\.gate_up_proj)", 16}});
  const auto& parameters = config.at("target_parameters");
  const auto named = [&](const char* name) {
    return std::count(parameters.begin(), parameters.end(), name) == 1;
  };
  CHECK(named("mlp.experts.gate_up_proj"));
  CHECK(named("mlp.experts.down_proj"));
  CHECK(named("shared_experts.gate_proj.weight"));
  CHECK(named("layers.0.mlp.up_proj.weight"));
}

// As PEFT 0.21 trains it: one A for gate and up, a full B.
void write_native(const MergeFixture& f, const std::string& name) {
  AdapterFile file;
  std::uint64_t seed = 50;
  for (const char* layer : {"model.layers.1.mlp.experts", "model.layers.2.mlp.experts"}) {
    const auto set = [&](const std::string& key, std::int64_t rows, std::int64_t cols) {
      file.set(kPrefix + layer + key, {rows, cols}, random_values(rows * cols, 0.1f, ++seed));
    };
    set(".base_layer.lora_A.weight", kE * kR, kHidden);
    set(".base_layer.lora_B.weight", 2 * kWidth, kR * kE);
    set(".lora_A.weight", kE * kR, kWidth);
    set(".lora_B.weight", kHidden, kR * kE);
  }
  auto settings = lora_settings(nlohmann::json::array(), kR, 8);
  settings["target_parameters"] = {"mlp.experts.gate_up_proj", "mlp.experts.down_proj"};
  write_adapter(f.path(name), settings, file);
}

TEST_CASE("natively fused tensors are split with their rank and come back as they were") {
  const MergeFixture f;
  write_native(f, "native");
  for (const bool with_model : {true, false}) {
    const std::string plain = with_model ? "plain" : "plain-alone";
    const std::string back = with_model ? "back" : "back-alone";
    rewrite(f, "native", plain, "peft", with_model);
    rewrite(f, plain, back, "peft_fused", with_model);
    CHECK(tensors_of(f.path(back)) == tensors_of(f.path("native")));
    CHECK(merged_bytes(f, plain) == merged_bytes(f, "native"));
    CHECK(config_of(f.path(plain)).at("r") == kR);
    CHECK(config_of(f.path(plain)).at("lora_alpha") == 8);
  }
  // Against formats.md 7.4: delta of expert e is B[:, :, e] A[e], gate the first rows.
  const auto native = open_tensors(f.path("native")), plain = open_tensors(f.path("plain"));
  const auto a = tensor(native, kExperts + ".base_layer.lora_A.weight");
  const auto b = tensor(native, kExperts + ".base_layer.lora_B.weight");
  const auto up_a = tensor(plain, kExperts + ".5.up_proj.lora_A.weight");
  const auto up_b = tensor(plain, kExperts + ".5.up_proj.lora_B.weight");
  for (std::size_t o = 0; o < kWidth; ++o) {
    for (std::size_t i = 0; i < kHidden; ++i) {
      float fused = 0.0f, split = 0.0f;
      for (std::size_t k = 0; k < kR; ++k) {
        fused += b[(kWidth + o) * kR * kE + k * kE + 5] * a[(5 * kR + k) * kHidden + i];
        split += up_b[o * kR + k] * up_a[k * kHidden + i];
      }
      CHECK(fused == split);
    }
  }
}

TEST_CASE("experts of different ranks and scalings, and experts without tensors, are fused") {
  const MergeFixture f;
  nlohmann::json names = nlohmann::json::array();
  for (int e = 0; e < 5; ++e) {
    for (const char* p : {"gate_proj", "up_proj", "down_proj"}) {
      names.push_back("experts." + std::to_string(e) + "." + p);
    }
  }
  auto settings = lora_settings(names, kR, 8);
  settings["rank_pattern"] = {{R"(experts\.2\.(gate|up)_proj)", 2}};
  settings["alpha_pattern"] = {{R"(experts\.3\.\w+)", 16}};
  write_adapter(f.path("plain"), settings, random_adapter(settings, f.config));
  rewrite(f, "plain", "fused", "peft_fused", true);
  // Scalings 2, 4 (experts 2 and 3): powers of two, so that the folded B is exact.
  CHECK(merged_bytes(f, "fused") == merged_bytes(f, "plain"));
}

TEST_CASE("an adapter of some layers names its modules by whole paths") {
  const MergeFixture f;
  auto settings = lora_settings({"o_proj", "q_a_proj"}, kR, 8);
  settings["layers_to_transform"] = {1};
  write_adapter(f.path("plain"), settings, random_adapter(settings, f.config));
  for (const bool with_model : {true, false}) {
    const std::string out = with_model ? "out" : "alone";
    rewrite(f, "plain", out, "peft", with_model);
    CHECK(config_of(f.path(out)).at("target_modules").get<std::set<std::string>>() ==
          std::set<std::string>{"model.layers.1.self_attn.q_a_proj",
                                "model.layers.1.self_attn.o_proj"});
    CHECK(tensors_of(f.path(out)) == tensors_of(f.path("plain")));
  }
}

TEST_CASE("whole weights, magnitudes and dtypes pass through") {
  const MergeFixture f;
  auto settings = lora_settings({"o_proj"}, 2, 4);
  settings["use_dora"] = true;
  settings["modules_to_save"] = {"lm_head"};
  AdapterFile file = random_adapter(settings, f.config);
  file.set(kPrefix + "lm_head.weight", {kTinyVocab, kHidden},
           random_values(kTinyVocab * kHidden, 0.1f, 3));
  file.set_bits(kPrefix + "model.layers.0.self_attn.o_proj.lora_A.weight", ds::DType::kBF16,
                {2, kHidden}, std::vector<std::uint16_t>(2 * kHidden, 0x3e81));
  write_adapter(f.path("plain"), settings, file);
  rewrite(f, "plain", "out", "peft", true);
  CHECK(tensors_of(f.path("out")) == tensors_of(f.path("plain")));
  const auto config = config_of(f.path("out"));
  CHECK(config.at("use_dora") == true);
  CHECK(config.at("modules_to_save") == nlohmann::json{"lm_head"});
}

// Values of a tensor of a GGUF adapter, F32.
std::vector<float> gguf_values(const ds::GgufFile& file, const std::string& name,
                               const std::vector<std::int64_t>& shape) {
  const ds::GgufTensor* info = file.find(name);
  REQUIRE_MESSAGE(info != nullptr, name);
  CHECK(info->shape == shape);
  REQUIRE(info->is(ds::GgmlType::kF32));
  std::vector<float> out(info->bytes() / 4);
  std::memcpy(out.data(), file.data(*info), info->bytes());
  return out;
}

TEST_CASE("a GGUF adapter holds every delta, under llama.cpp's names") {
  const MergeFixture f;
  auto settings = lora_settings(
      {"o_proj", "kv_b_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"}, kR, 8);
  settings["rank_pattern"] = {{"o_proj", 2}};  // scaling 4 instead of 2
  write_adapter(f.path("plain"), settings, random_adapter(settings, f.config));
  const ds::test::Outcome outcome =
      convert({"adapter", f.path("plain"), f.path("out.gguf"), "--to", "gguf_lora", "--model",
               f.path("model"), "--threads", "2"});
  REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
  CHECK(has(outcome.err, "llama.cpp has left adapters of kv_b_proj out"));
  const auto gguf = ds::GgufFile::open(f.path("out.gguf"));
  CHECK(gguf.find_key("general.architecture")->text() == "deepseek2");
  CHECK(gguf.find_key("general.type")->text() == "adapter");
  CHECK(gguf.find_key("adapter.type")->text() == "lora");
  CHECK(gguf.find_key("adapter.lora.alpha")->type == ds::GgufValueType::kF32);
  const double alpha = gguf.find_key("adapter.lora.alpha")->number();
  CHECK(alpha == 8);
  const auto plain = open_tensors(f.path("plain"));

  // What llama.cpp adds to an element: alpha / rank * sum over the rank.
  const auto product = [&](const std::vector<float>& b, const std::vector<float>& a,
                           std::size_t rank, std::size_t in, std::size_t row, std::size_t col) {
    double sum = 0.0;
    for (std::size_t k = 0; k < rank; ++k) sum += double{b[row * rank + k]} * a[k * in + col];
    return sum * alpha / static_cast<double>(rank);
  };
  // F32 products of a few tenths, and one factor that is a power of two.
  const auto same = [](double x, double y) { CHECK(std::abs(x - y) < 1e-12); };
  const std::string attention = "model.layers.1.self_attn.";
  {
    const auto a = gguf_values(gguf, "blk.1.attn_output.weight.lora_a", {2, 64});
    const auto b = gguf_values(gguf, "blk.1.attn_output.weight.lora_b", {64, 2});
    const auto pa = tensor(plain, attention + "o_proj.lora_A.weight");
    const auto pb = tensor(plain, attention + "o_proj.lora_B.weight");
    CHECK(a == pa);
    for (std::size_t i = 0; i < 64; ++i) {
      same(product(b, a, 2, 64, i, 7),
           4.0 * (double{pb[2 * i]} * pa[7] + double{pb[2 * i + 1]} * pa[64 + 7]));
    }
  }
  {
    // kv_b_proj of 4 heads, 16 key and 16 value rows each, rank 16 of the latent.
    const auto pa = tensor(plain, attention + "kv_b_proj.lora_A.weight");
    const auto pb = tensor(plain, attention + "kv_b_proj.lora_B.weight");
    const auto ka = gguf_values(gguf, "blk.1.attn_k_b.weight.lora_a", {4, kR, 16});
    const auto kb = gguf_values(gguf, "blk.1.attn_k_b.weight.lora_b", {4, 16, kR});
    const auto va = gguf_values(gguf, "blk.1.attn_v_b.weight.lora_a", {4, kR, 16});
    const auto vb = gguf_values(gguf, "blk.1.attn_v_b.weight.lora_b", {4, 16, kR});
    for (std::size_t h = 0; h < 4; ++h) {
      for (std::size_t i = 0; i < 16; ++i) {
        for (std::size_t j = 0; j < 16; ++j) {
          double key = 0.0, value = 0.0, wanted_key = 0.0, wanted_value = 0.0;
          for (std::size_t k = 0; k < kR; ++k) {
            // attn_k_b is [latent, key row], attn_v_b [value row, latent].
            key += double{kb[(h * 16 + i) * kR + k]} * ka[(h * kR + k) * 16 + j];
            wanted_key += double{pb[(h * 32 + j) * kR + k]} * pa[k * 16 + i];
            value += double{vb[(h * 16 + i) * kR + k]} * va[(h * kR + k) * 16 + j];
            wanted_value += double{pb[(h * 32 + 16 + i) * kR + k]} * pa[k * 16 + j];
          }
          same(key * alpha / kR, 2.0 * wanted_key);
          same(value * alpha / kR, 2.0 * wanted_value);
        }
      }
    }
  }
  {
    const auto a = gguf_values(gguf, "blk.2.ffn_up_exps.weight.lora_a", {kE, kR, kHidden});
    const auto b = gguf_values(gguf, "blk.2.ffn_up_exps.weight.lora_b", {kE, kWidth, kR});
    std::vector<float> wanted_a, wanted_b;
    for (std::int64_t e = 0; e < kE; ++e) {
      const std::string name = "model.layers.2.mlp.experts." + std::to_string(e) + ".up_proj";
      for (const float value : tensor(plain, name + ".lora_A.weight")) wanted_a.push_back(value);
      for (const float value : tensor(plain, name + ".lora_B.weight")) wanted_b.push_back(value);
    }
    CHECK(a == wanted_a);
    CHECK(b == wanted_b);
  }
  {
    // llama.cpp looks a token's row of lora_a up.
    const auto a = gguf_values(gguf, "token_embd.weight.lora_a", {kTinyVocab, kR});
    const auto pa = tensor(plain, "model.embed_tokens.lora_embedding_A");
    for (std::size_t v = 0; v < 300; ++v) {
      for (std::size_t k = 0; k < kR; ++k) CHECK(a[v * kR + k] == pa[k * 300 + v]);
    }
    CHECK(gguf_values(gguf, "token_embd.weight.lora_b", {kHidden, kR}) ==
          tensor(plain, "model.embed_tokens.lora_embedding_B"));
  }
  CHECK(gguf.find("blk.0.ffn_gate.weight.lora_a") != nullptr);
  CHECK(gguf.find("blk.1.ffn_gate_shexp.weight.lora_b") != nullptr);
  // 3 layers: o, k_b and v_b; one dense and two MoE layers with three each, shared ones too.
  CHECK(gguf.tensors().size() == 2 * (1 + 3 * 3 + 3 + 2 * (3 + 3)));
}

TEST_CASE("what cannot be rewritten") {
  const MergeFixture f;
  auto settings = lora_settings({"o_proj"}, 2, 4);
  AdapterFile file = random_adapter(settings, f.config);
  const auto refusal = [&](int code, std::vector<std::string> arguments) {
    write_adapter(f.path("adapter"), settings, file);
    const auto before = f.names();
    arguments.insert(arguments.begin(), {"adapter", f.path("adapter"), f.path("out")});
    const Outcome outcome = convert(arguments);
    CHECK(outcome.exit_code == code);
    CHECK(f.names() == before);
    return outcome.err;
  };
  const std::string model = f.path("model");
  SUBCASE("nothing to fuse") {
    CHECK(has(refusal(3, {"--to", "peft_fused"}), "adapts no routed expert"));
  }
  SUBCASE("DoRA on experts") {
    settings = lora_settings({"down_proj"}, 2, 4);
    settings["use_dora"] = true;
    file = random_adapter(settings, f.config);
    CHECK(has(refusal(3, {"--to", "peft_fused", "--model", model}), "DoRA on routed experts"));
    CHECK(has(refusal(3, {"--to", "gguf_lora", "--model", model}), "DoRA has no place"));
  }
  SUBCASE("a whole weight in GGUF") {
    file.set_ramp(kPrefix + "lm_head.weight", {kTinyVocab, kHidden});
    const auto text = refusal(3, {"--to", "gguf_lora", "--model", model});
    CHECK(has(text, "modules_to_save"));
    CHECK(has(text, "deepseek-convert merge"));
  }
  SUBCASE("GGUF without a model") {
    CHECK(has(refusal(2, {"--to", "gguf_lora"}), "needs --model"));
  }
  SUBCASE("B is missing, with and without a model") {
    file.erase(kPrefix + "model.layers.1.self_attn.o_proj.lora_B.weight");
    CHECK(has(refusal(3, {"--to", "peft"}), "but not"));
    CHECK(has(refusal(3, {"--to", "peft", "--model", model}), "but not"));
  }
  SUBCASE("another model") {
    file = random_adapter(settings, f.config);
    settings["r"] = 3;
    CHECK(has(refusal(3, {"--to", "peft", "--model", model}), "rank 2 in the file, 3"));
  }
}

}  // namespace
