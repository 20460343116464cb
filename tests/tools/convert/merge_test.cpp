// deepseek-convert merge.
#include <sys/resource.h>

#include <bit>
#include <cmath>
#include <set>

#include "tests/golden/golden_model.h"
#include "tests/support/schema.h"
#include "tests/tools/convert/merge_fixture.h"

namespace {

using namespace ds::test;
using ds::DType;

const std::string kO = "model.layers.1.self_attn.o_proj";
const nlohmann::json kAttention{"q_a_proj", "q_b_proj", "kv_a_proj_with_mqa", "kv_b_proj",
                                "o_proj"};

// Round to nearest even, as formats.md section 5 says.
std::uint16_t bf16_bits(float value) {
  auto bits = std::bit_cast<std::uint32_t>(value);
  bits += 0x7fffU + ((bits >> 16U) & 1U);
  return static_cast<std::uint16_t>(bits >> 16U);
}

// base + scaling * B A with the sums in rank order, every step in f32.
std::vector<float> merged(const std::vector<float>& base, const std::vector<float>& a,
                          const std::vector<float>& b, std::int64_t rank, float scaling) {
  const auto r = static_cast<std::size_t>(rank);
  const std::size_t cols = a.size() / r;
  std::vector<float> out(base.size());
  for (std::size_t i = 0; i < out.size(); ++i) {
    volatile float sum = 0.0f;  // volatile: no multiply-add that rounds once
    for (std::size_t k = 0; k < r; ++k) {
      volatile float product = b[i / cols * r + k] * a[k * cols + i % cols];
      sum = sum + product;
    }
    volatile float change = scaling * sum;
    out[i] = base[i] + change;
  }
  return out;
}

// The adapter of one module with the given values, rank 2.
void write_one_module(const MergeFixture& f, const std::vector<float>& a,
                      const std::vector<float>& b) {
  AdapterFile file;
  const auto in = static_cast<std::int64_t>(a.size() / 2);
  const auto out = static_cast<std::int64_t>(b.size() / 2);
  file.set(kPrefix + kO + ".lora_A.weight", {2, in}, a);
  file.set(kPrefix + kO + ".lora_B.weight", {out, 2}, b);
  write_adapter(f.path("adapter"), lora_settings({"layers.1.self_attn.o_proj"}, 2, 6), file);
}

TEST_CASE("merged models give the logits of base and adapter") {
  const auto root = goldens();
  if (root.empty()) return;
  struct Case {
    const char* model;
    const char* variant;
    std::vector<std::string> flags;
    double tolerance;  // goldens/README.md, "merged against adapter logits"
  };
  const std::vector<Case> cases{
      {"tiny-v3", "all", {}, 5e-5},        {"tiny-v3", "rslora", {}, 5e-5},
      {"tiny-v3", "dora", {}, 5e-5},       {"tiny-v3", "patterns", {}, 5e-5},
      {"tiny-v2", "all", {}, 1e-4},        {"tiny-v2-lite", "all", {}, 5e-5},
      {"tiny-moonlight", "all", {}, 5e-5}, {"tiny-v3-fp8", "not_routed", {"--dtype", "f32"}, 5e-5}};
  for (const Case& c : cases) {
    INFO(c.model << " " << c.variant);
    const TempFolder folder;
    const fs::path out = folder / "merged";
    const auto lora = root / c.model / "lora" / c.variant;
    std::vector<std::string> arguments{"merge", (root / c.model / c.model).string(), lora.string(),
                                       out.string()};
    arguments.insert(arguments.end(), c.flags.begin(), c.flags.end());
    convert_json(arguments);
    GoldenModel golden(out);
    const auto file = ds::SafetensorsFile::open(lora / "golden.safetensors");
    const auto forward = ds::SafetensorsFile::open(root / c.model / "forward.safetensors");
    const GoldenBatch batch = read_batch(forward, "ragged.");
    const auto shape = file.find("ragged.logits")->shape;
    const double difference =
        logits_difference(all_logits(golden, batch.batch), float_values(file, "ragged.logits"),
                          batch.lengths, shape[1], shape[2], static_cast<std::size_t>(shape[0]));
    CHECK(difference <= c.tolerance);
  }
}

TEST_CASE("the sum is made in f32 and rounded once") {
  const MergeFixture f;
  const auto a = random_values(2 * 64, 0.3f, 1);
  const auto b = random_values(2 * 64, 0.1f, 2);
  write_one_module(f, a, b);
  const auto base = read_tensors(f.path("model"));
  SUBCASE("F32") {
    const auto json = convert_json({"merge", f.path("model"), f.path("adapter"), f.path("out")});
    const auto out = read_tensors(f.path("out"));
    const auto wanted = merged(base.at(kO + ".weight").floats(), a, b, 2, 3.0f);
    CHECK(out.at(kO + ".weight").floats() == wanted);
    CHECK(json.at("weights_changed") == 1);
    CHECK(json.at("rounding_lost") == 0.0);
    CHECK(json.at("max_change_tensor") == kO + ".weight");
    float largest = 0.0f;
    const auto before = base.at(kO + ".weight").floats();
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      largest = std::max(largest, std::abs(wanted[i] - before[i]));
    }
    CHECK(json.at("max_change").get<float>() == largest);
    // Nothing else is touched.
    for (const auto& [name, tensor] : base) {
      if (name != kO + ".weight") CHECK_MESSAGE(out.at(name) == tensor, name);
    }
    CHECK(out.size() == base.size());
    CHECK(read_text(f.path("out") + "/config.json") == read_text(f.path("model") + "/config.json"));
  }
  SUBCASE("BF16") {
    convert_json({"weights", f.path("model"), f.path("narrow"), "--to", "bf16"});
    const auto json = convert_json({"merge", f.path("narrow"), f.path("adapter"), f.path("out")});
    const auto narrow = read_tensors(f.path("narrow"));
    const auto out = read_tensors(f.path("out"));
    const auto wanted = merged(narrow.at(kO + ".weight").floats(), a, b, 2, 3.0f);
    const StoredTensor& stored = out.at(kO + ".weight");
    CHECK(stored.dtype == DType::kBF16);
    double lost = 0.0, change = 0.0, worst = 0.0;
    const auto before = narrow.at(kO + ".weight").floats(), after = stored.floats();
    for (std::size_t i = 0; i < wanted.size(); ++i) {
      std::uint16_t bits = 0;
      std::memcpy(&bits, stored.bytes.data() + 2 * i, 2);
      CHECK(bits == bf16_bits(wanted[i]));
      lost += std::pow(after[i] - wanted[i], 2.0);
      change += std::pow(wanted[i] - before[i], 2.0);
      worst = std::max<double>(worst, std::abs(after[i] - wanted[i]));
    }
    // Sums of 4096 squares in f32 lanes: 2^-24 times 64 additions is far below 1e-5.
    CHECK(json.at("rounding_lost").get<double>() ==
          doctest::Approx(std::sqrt(lost / change)).epsilon(1e-5));
    CHECK(json.at("max_abs_error").get<double>() == worst);
  }
  SUBCASE("F32 out of BF16 loses nothing") {
    convert_json({"weights", f.path("model"), f.path("narrow"), "--to", "bf16"});
    convert_json({"merge", f.path("narrow"), f.path("adapter"), f.path("out"), "--dtype", "f32"});
    const auto wanted =
        merged(read_tensors(f.path("narrow")).at(kO + ".weight").floats(), a, b, 2, 3.0f);
    CHECK(read_tensors(f.path("out")).at(kO + ".weight").floats() == wanted);
    CHECK(nlohmann::json::parse(read_text(f.path("out") + "/config.json")).at("torch_dtype") ==
          "float32");
  }
}

TEST_CASE("a change below BF16's step is reported as lost") {
  const MergeFixture f;
  convert_json({"weights", f.path("model"), f.path("narrow"), "--to", "bf16"});
  // Half a step is 2^-9 of a value at least: 2^-12 of the smallest power of two below each row's
  // smallest value moves nothing.
  const auto base = read_tensors(f.path("narrow")).at(kO + ".weight").floats();
  float smallest = 1.0f;
  for (const float value : base) {
    if (value != 0.0f) smallest = std::min(smallest, std::abs(value));
  }
  std::vector<float> a(128, 0.0f), b(128, 0.0f);
  for (std::size_t i = 0; i < 64; ++i) a[i] = smallest * 0x1p-12f;
  for (std::size_t i = 0; i < 64; ++i) b[2 * i] = 1.0f;
  write_one_module(f, a, b);
  const auto json = convert_json({"merge", f.path("narrow"), f.path("adapter"), f.path("out")});
  CHECK(json.at("rounding_lost").get<double>() == doctest::Approx(1.0).epsilon(1e-4));
  CHECK(read_tensors(f.path("out")) == read_tensors(f.path("narrow")));
}

TEST_CASE("B of zero gives the base's bytes") {
  const MergeFixture f;
  const auto settings = lora_settings({"q_a_proj", "o_proj", "down_proj", "embed_tokens"});
  write_adapter(f.path("adapter"), settings, random_adapter(settings, f.config, 0.0f));
  for (const char* to : {"f32", "bf16", "fp8"}) {
    INFO(to);
    const std::string base = f.path(to);
    convert_json({"weights", f.path("model"), base, "--to", to});
    const auto json = convert_json({"merge", base, f.path("adapter"), base + "-out"});
    CHECK(read_tensors(base) == read_tensors(base + "-out"));
    CHECK(json.at("weights_changed") == 0);
    CHECK(json.at("weights_zero_update").get<int>() > 0);
    for (const char* name : {"/model.safetensors", "/config.json"}) {
      CHECK(read_text(base + name) == read_text(base + "-out" + name));
    }
  }
}

TEST_CASE("the number of threads and the memory change no byte") {
  const MergeFixture f;
  const auto settings = lora_settings(kAttention);
  write_adapter(f.path("adapter"), settings, random_adapter(settings, f.config));
  const auto run = [&](const char* out, const char* threads) {
    const Outcome outcome = convert({"merge", f.path("model"), f.path("adapter"), f.path(out),
                                     "--threads", threads, "--format", "json"});
    REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
    return nlohmann::json::parse(outcome.out).at("rounding_lost");
  };
  CHECK(run("one", "1") == run("three", "3"));
  CHECK(read_text(f.path("one") + "/model.safetensors") ==
        read_text(f.path("three") + "/model.safetensors"));
}

TEST_CASE("FP8 blocks without a change keep codes and scales") {
  const auto root = goldens();
  if (root.empty()) return;
  for (const char* model : {"tiny-v3-fp8", "tiny-v3-fp8-ue8m0"}) {
    INFO(model);
    const auto base_folder = root / model / model;
    const auto base = read_tensors(base_folder);
    const std::string name = "model.layers.0.self_attn.o_proj.weight";
    const std::int64_t rows = base.at(name).shape[0], cols = base.at(name).shape[1];
    REQUIRE(rows > 128);
    // Only rows from 128 on change, and of them only columns below 3.
    auto a = std::vector<float>(static_cast<std::size_t>(2 * cols), 0.0f);
    auto b = random_values(2 * rows, 0.1f, 5);
    for (std::size_t j = 0; j < 3; ++j) a[j] = 0.5f;
    std::fill(b.begin(), b.begin() + 2 * 128, 0.0f);
    AdapterFile file;
    file.set(kPrefix + "model.layers.0.self_attn.o_proj.lora_A.weight", {2, cols}, a);
    file.set(kPrefix + "model.layers.0.self_attn.o_proj.lora_B.weight", {rows, 2}, b);
    const TempFolder folder;
    write_adapter(folder / "adapter", lora_settings({"layers.0.self_attn.o_proj"}, 2, 2), file);
    const auto json =
        convert_json({"merge", base_folder.string(), folder / "adapter", folder / "out"});
    const auto out = read_tensors(folder / "out");
    const std::int64_t high = (rows + 127) / 128, across = (cols + 127) / 128;
    CHECK(json.at("fp8_blocks") == high * across);
    CHECK(json.at("fp8_blocks_kept") == high * across - (high - 1));
    // The golden's single change is in block column 0 of the lower block rows.
    std::size_t changed = 0;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        const auto at = static_cast<std::size_t>(i * cols + j);
        const bool same = out.at(name).bytes[at] == base.at(name).bytes[at];
        if (i < 128 || j >= 128) CHECK(same);
        changed += same ? 0 : 1;
      }
    }
    CHECK(changed > 0);
    const auto before = base.at(name + "_scale_inv").floats();
    const auto after = out.at(name + "_scale_inv").floats();
    for (std::int64_t i = 0; i < high; ++i) {
      for (std::int64_t j = 0; j < across; ++j) {
        const auto at = static_cast<std::size_t>(i * across + j);
        if (i == 0 || j > 0) CHECK(before[at] == after[at]);
        if (std::string(model).ends_with("ue8m0")) {
          CHECK((std::bit_cast<std::uint32_t>(after[at]) & 0x7fffffU) == 0);
        }
      }
    }
    // Everything else, and the two files' names.
    for (const auto& [key, tensor] : base) {
      if (key != name && key != name + "_scale_inv") CHECK_MESSAGE(out.at(key) == tensor, key);
    }
    CHECK(out.at(name).file == base.at(name).file);
    CHECK(nlohmann::json::parse(read_text(folder / "out/model.safetensors.index.json"))
              .at("weight_map") ==
          nlohmann::json::parse(read_text(base_folder / "model.safetensors.index.json"))
              .at("weight_map"));
  }
}

TEST_CASE("scales of one byte stay that") {
  const auto root = goldens();
  if (root.empty()) return;
  const TempFolder folder;
  const auto wide = (root / "tiny-v3-fp8-ue8m0" / "tiny-v3-fp8-ue8m0").string();
  const std::string base = folder / "base", adapter = folder / "adapter", out = folder / "out";
  convert_json(
      {"weights", wide, base, "--to", "fp8", "--scale_fmt", "ue8m0", "--scale_dtype", "e8m0"});
  const auto settings = lora_settings({"layers.0.self_attn.o_proj"}, 2, 2);
  write_adapter(adapter, settings, random_adapter(settings, ds::load_model_config(base)));
  convert_json({"merge", base, adapter, out});
  convert_json({"merge", wide, adapter, folder / "wide"});
  const auto bytes = read_tensors(out), floats = read_tensors(folder / "wide");
  const std::string name = "model.layers.0.self_attn.o_proj.weight";
  CHECK(bytes.at(name).bytes == floats.at(name).bytes);
  const StoredTensor& scale = bytes.at(name + "_scale_inv");
  CHECK(scale.dtype == DType::kF8E8M0);
  const auto values = floats.at(name + "_scale_inv").floats();
  REQUIRE(scale.bytes.size() == values.size());
  for (std::size_t i = 0; i < values.size(); ++i) {
    CHECK(std::ldexp(1.0, static_cast<unsigned char>(scale.bytes[i]) - 127) == values[i]);
  }
  CHECK(bytes.at(name) != read_tensors(base).at(name));
}

TEST_CASE("a report's lines are as their schemas say") {
  const MergeFixture f;
  const auto settings = lora_settings(kAttention);
  write_adapter(f.path("adapter"), settings, random_adapter(settings, f.config));
  convert_json({"merge", f.path("model"), f.path("adapter"), f.path("out"), "--report",
                f.path("report.jsonl")});
  for (const std::string& problem : validate_report(f.path("report.jsonl"))) FAIL_CHECK(problem);
  const std::string report = read_text(f.path("report.jsonl"));
  CHECK(has(report, "deepseek/convert-summary/1"));
  CHECK(has(report, R"("weights_changed":15)"));
}

TEST_CASE("a merged FP8 weight is the nearest that its scales can say") {
  const auto root = goldens();
  if (root.empty()) return;
  const TempFolder folder;
  const auto base = (root / "tiny-v3-fp8" / "tiny-v3-fp8").string();
  const auto lora = (root / "tiny-v3-fp8" / "lora" / "not_routed").string();
  const auto path = [&](const char* name) { return folder / name; };
  convert_json({"merge", base, lora, path("fp8")});
  convert_json({"weights", path("fp8"), path("wide"), "--to", "f32"});
  convert_json({"merge", base, lora, path("exact"), "--dtype", "f32"});
  convert_json({"weights", path("exact"), path("again"), "--to", "fp8"});
  // The same codes as the exact sum quantised, for every weight that the adapter changes (the
  // others keep the codes they had).
  const auto ours = read_tensors(path("fp8")), again = read_tensors(path("again"));
  const auto config = ds::load_model_config(base);
  const auto targets = ds::match_targets(ds::load_lora_config(lora), config, ds::Unmatched::kAllow);
  for (const ds::LoraTarget& target : targets) {
    const std::string name = target.module.path + ".weight";
    CHECK_MESSAGE(ours.at(name).bytes == again.at(name).bytes, name);
    CHECK_MESSAGE(ours.at(name + "_scale_inv").bytes == again.at(name + "_scale_inv").bytes, name);
  }
  CHECK(targets.size() > 4);
}

TEST_CASE("the embedding and whole weights") {
  const MergeFixture f;
  const auto base = read_tensors(f.path("model"));
  auto settings = lora_settings({"embed_tokens", "q_a_proj"}, 4, 8);
  const std::string embed = "model.embed_tokens";
  SUBCASE("LoRA of the embedding") {
    AdapterFile file = random_adapter(settings, f.config);
    // As peft stores it, a copy of the base's weight goes along.
    file.set(kPrefix + embed + ".base_layer.weight", {kTinyVocab, 64},
             base.at(embed + ".weight").floats());
    write_adapter(f.path("adapter"), settings, file);
    convert_json({"merge", f.path("model"), f.path("adapter"), f.path("out")});
    const auto adapter =
        ds::SafetensorsFile::open(f.path("adapter") + "/adapter_model.safetensors");
    const auto a = float_values(adapter, kPrefix + embed + ".lora_embedding_A");  // [r, vocab]
    const auto b = float_values(adapter, kPrefix + embed + ".lora_embedding_B");  // [hidden, r]
    const auto before = base.at(embed + ".weight").floats();
    const auto after = read_tensors(f.path("out")).at(embed + ".weight").floats();
    for (std::size_t v = 0; v < 300; ++v) {
      for (std::size_t h = 0; h < 64; ++h) {
        double sum = 0.0;
        for (std::size_t k = 0; k < 4; ++k) sum += double{b[h * 4 + k]} * a[k * 300 + v];
        // Four products, two roundings each, and the last sum: 10 eps of values around 1.
        CHECK(std::abs(after[v * 64 + h] - (before[v * 64 + h] + 2.0 * sum)) <= 10 * 0x1p-24 * 4);
      }
    }
  }
  SUBCASE("a head that modules_to_save trained") {
    settings = lora_settings({"q_a_proj"});
    AdapterFile file = random_adapter(settings, f.config);
    const auto head = random_values(kTinyVocab * 64, 0.1f, 9);
    file.set(kPrefix + "lm_head.weight", {kTinyVocab, 64}, head);
    settings["modules_to_save"] = {"lm_head"};
    write_adapter(f.path("adapter"), settings, file);
    const auto json = convert_json({"merge", f.path("model"), f.path("adapter"), f.path("out")});
    const auto out = read_tensors(f.path("out"));
    CHECK(out.at("lm_head.weight").floats() == head);
    CHECK(json.at("weights_replaced") == 1);
    CHECK(out.at(embed + ".weight") == base.at(embed + ".weight"));
  }
  SUBCASE("a router that modules_to_save trained, in BF16") {
    settings = lora_settings({"q_a_proj"});
    AdapterFile file = random_adapter(settings, f.config);
    const std::vector<std::uint16_t> bits(8 * 64, bf16_bits(0.375f));
    file.set_bits(kPrefix + "model.layers.1.mlp.gate.modules_to_save.weight", DType::kBF16, {8, 64},
                  bits);
    settings["modules_to_save"] = {"mlp.gate"};
    write_adapter(f.path("adapter"), settings, file);
    convert_json({"merge", f.path("model"), f.path("adapter"), f.path("out")});
    const auto gate = read_tensors(f.path("out")).at("model.layers.1.mlp.gate.weight");
    CHECK(gate.dtype == DType::kF32);
    CHECK(gate.floats() == std::vector<float>(8 * 64, 0.375f));
  }
  SUBCASE("another vocabulary is refused") {
    settings = lora_settings({"q_a_proj"});
    AdapterFile file = random_adapter(settings, f.config);
    file.set_ramp(kPrefix + "lm_head.weight", {kTinyVocab + 1, 64});
    write_adapter(f.path("adapter"), settings, file);
    CHECK(has(f.refusal(3), "lm_head.weight has shape [301, 64], needed is [300, 64]"));
  }
  SUBCASE("a whole weight that modules_to_save does not name is refused") {
    settings = lora_settings({"q_a_proj"});
    AdapterFile file = random_adapter(settings, f.config);
    file.set_ramp(kPrefix + "model.norm.weight", {64});
    write_adapter(f.path("adapter"), settings, file);
    CHECK(has(f.refusal(3), "model.norm.weight' is a whole weight"));
  }
}

TEST_CASE("an adapter of an embedding that is also the head is refused") {
  const MergeFixture f(TinyModel{.tied = true});
  const auto settings = lora_settings({"embed_tokens"});
  write_adapter(f.path("adapter"), settings, random_adapter(settings, f.config));
  CHECK(has(f.refusal(3), "tie_word_embeddings"));
}

TEST_CASE("DoRA brings each row to its magnitude") {
  const MergeFixture f;
  auto settings = lora_settings({"o_proj"});
  settings["use_dora"] = true;
  write_adapter(f.path("adapter"), settings, random_adapter(settings, f.config));
  convert_json({"merge", f.path("model"), f.path("adapter"), f.path("out")});
  const auto adapter = ds::SafetensorsFile::open(f.path("adapter") + "/adapter_model.safetensors");
  const auto magnitude = float_values(adapter, kPrefix + kO + ".lora_magnitude_vector");
  const auto rows = read_tensors(f.path("out")).at(kO + ".weight").floats();
  for (std::size_t i = 0; i < 64; ++i) {
    double squares = 0.0;
    for (std::size_t j = 0; j < 64; ++j) squares += std::pow(rows[i * 64 + j], 2.0);
    // Norm, quotient and product each round once in f32.
    CHECK(std::sqrt(squares) == doctest::Approx(magnitude[i]).epsilon(3 * 0x1p-24));
  }
}

TEST_CASE("fused and per-expert files of one adapter merge to the same bytes") {
  const MergeFixture f;
  const std::int64_t experts = 8, hidden = 64, width = 32, r = 2;
  auto settings = lora_settings({"experts.0.gate_proj"}, 2, 4);
  nlohmann::json names = nlohmann::json::array();
  for (int e = 0; e < experts; ++e) {
    for (const char* p : {"gate_proj", "up_proj", "down_proj"}) {
      names.push_back("experts." + std::to_string(e) + "." + p);
    }
  }
  settings["target_modules"] = names;
  AdapterFile plain = random_adapter(settings, f.config);
  write_adapter(f.path("adapter"), settings, plain);
  convert_json({"merge", f.path("model"), f.path("adapter"), f.path("plain")});
  // The same values as peft fuses them: formats.md 7.4.
  const auto source = ds::SafetensorsFile::open(f.path("adapter") + "/adapter_model.safetensors");
  AdapterFile fused;
  for (int layer = 1; layer < 3; ++layer) {
    const std::string base = kPrefix + "model.layers." + std::to_string(layer) + ".mlp.experts";
    const auto get = [&](std::int64_t e, const char* p, const char* which) {
      return float_values(source,
                          base + "." + std::to_string(e) + "." + p + ".lora_" + which + ".weight");
    };
    std::vector<float> ga(static_cast<std::size_t>(experts * 2 * r * hidden));
    std::vector<float> gb(static_cast<std::size_t>(2 * width * 2 * r * experts), 0.0f);
    std::vector<float> da(static_cast<std::size_t>(experts * r * width));
    std::vector<float> db(static_cast<std::size_t>(hidden * r * experts));
    for (std::int64_t e = 0; e < experts; ++e) {
      for (int half = 0; half < 2; ++half) {
        const auto a = get(e, half == 0 ? "gate_proj" : "up_proj", "A");
        const auto b = get(e, half == 0 ? "gate_proj" : "up_proj", "B");
        for (std::int64_t k = 0; k < r; ++k) {
          const std::int64_t rank = half * r + k;
          for (std::int64_t i = 0; i < hidden; ++i) {
            ga[static_cast<std::size_t>((e * 2 * r + rank) * hidden + i)] =
                a[static_cast<std::size_t>(k * hidden + i)];
          }
          for (std::int64_t o = 0; o < width; ++o) {
            gb[static_cast<std::size_t>(((half * width + o) * 2 * r + rank) * experts + e)] =
                b[static_cast<std::size_t>(o * r + k)];
          }
        }
      }
      const auto a = get(e, "down_proj", "A"), b = get(e, "down_proj", "B");
      for (std::int64_t k = 0; k < r; ++k) {
        for (std::int64_t i = 0; i < width; ++i) {
          da[static_cast<std::size_t>((e * r + k) * width + i)] =
              a[static_cast<std::size_t>(k * width + i)];
        }
        for (std::int64_t o = 0; o < hidden; ++o) {
          db[static_cast<std::size_t>((o * r + k) * experts + e)] =
              b[static_cast<std::size_t>(o * r + k)];
        }
      }
    }
    fused.set(base + ".base_layer.lora_A.weight", {experts * 2 * r, hidden}, ga);
    fused.set(base + ".base_layer.lora_B.weight", {2 * width, 2 * r * experts}, gb);
    fused.set(base + ".lora_A.weight", {experts * r, width}, da);
    fused.set(base + ".lora_B.weight", {hidden, r * experts}, db);
  }
  write_adapter(f.path("fused-adapter"), settings, fused);
  const auto json =
      convert_json({"merge", f.path("model"), f.path("fused-adapter"), f.path("fused")});
  CHECK(json.at("weights_changed") == 2 * 8 * 3);
  CHECK(read_text(f.path("plain") + "/model.safetensors") ==
        read_text(f.path("fused") + "/model.safetensors"));
}

TEST_CASE("what an adapter cannot be merged for") {
  const MergeFixture f;
  auto settings = lora_settings({"q_a_proj", "o_proj"});
  AdapterFile file = random_adapter(settings, f.config);
  const std::string a = kPrefix + kO + ".lora_A.weight", b = kPrefix + kO + ".lora_B.weight";
  const auto refusal = [&] {
    write_adapter(f.path("adapter"), settings, file);
    return f.refusal(3);
  };
  SUBCASE("no key matches") {
    file.rename_all([](const std::string& name) { return "base_model.model." + name.substr(23); });
    CHECK(has(refusal(), "0 of 12 keys match"));
  }
  SUBCASE("some keys match nothing") {
    file.set_ramp(kPrefix + "model.layers.9.self_attn.o_proj.lora_A.weight", {4, 64});
    CHECK(has(refusal(), "layers.9.self_attn.o_proj.lora_A.weight"));
  }
  SUBCASE("B is missing") {
    file.erase(b);
    CHECK(has(refusal(), "has '" + a + "' but not '" + b + "'"));
  }
  SUBCASE("another rank") {
    file.set_ramp(a, {3, 64});
    CHECK(has(refusal(), "rank 3 in the file, 4"));
  }
  SUBCASE("another width") {
    file.set_ramp(a, {4, 65});
    CHECK(has(refusal(), "'" + a + "' has shape [4, 65], needed is [4, 64]"));
  }
  SUBCASE("NaN") {
    file.set(a, {4, 64}, std::vector<float>(256, std::nanf("")));
    CHECK(has(refusal(), "nan at element 0"));
  }
  SUBCASE("settings that change what is computed") {
    for (const auto& [key, value] : std::vector<std::pair<std::string, nlohmann::json>>{
             {"lora_bias", true},
             {"trainable_token_indices", {1, 2}},
             {"layer_replication", {{0, 1}, {0, 1}}},
             {"use_qalora", true},
             {"alora_invocation_tokens", {5}},
             {"fan_in_fan_out", true},
             {"bias", "all"},
             {"peft_type", "LOHA"}}) {
      const auto before = settings;
      settings[key] = value;
      CHECK(has(refusal(), key));
      settings = before;
    }
  }
  SUBCASE("a model that is none") {
    write_adapter(f.path("adapter"), settings, file);
    std::filesystem::remove(f.path("model") + "/model.safetensors");
    CHECK(has(f.refusal(3), "model.safetensors"));
  }
  SUBCASE("an adapter that is none") {
    std::filesystem::create_directories(f.path("adapter"));
    CHECK(has(f.refusal(3), "adapter_config.json"));
  }
  SUBCASE("an output that exists") {
    write_adapter(f.path("adapter"), settings, file);
    std::filesystem::create_directories(f.path("out"));
    CHECK(has(f.refusal(2), "exists"));
  }
  SUBCASE("a value beyond f16") {
    file.set(a, {4, 64}, std::vector<float>(256, 3e4f));
    file.set(b, {64, 4}, std::vector<float>(256, 1.0f));
    convert_json({"weights", f.path("model"), f.path("half"), "--to", "f16"});
    std::filesystem::remove_all(f.path("model"));
    std::filesystem::rename(f.path("half"), f.path("model"));
    CHECK(has(refusal(), kO + ".weight: 4096 merged values are beyond"));
  }
}

TEST_CASE("files keep their names, or get the size asked for") {
  const MergeFixture f;
  convert_json(
      {"weights", f.path("model"), f.path("sharded"), "--to", "hf", "--max_shard_size", "100KB"});
  const auto settings = lora_settings(kAttention);
  write_adapter(f.path("adapter"), settings, random_adapter(settings, f.config));
  convert_json({"merge", f.path("sharded"), f.path("adapter"), f.path("out")});
  const auto base = read_tensors(f.path("sharded")), out = read_tensors(f.path("out"));
  std::set<std::string> files;
  for (const auto& [name, tensor] : base) {
    CHECK(out.at(name).file == tensor.file);
    files.insert(tensor.file);
  }
  CHECK(files.size() > 3);
  convert_json(
      {"merge", f.path("sharded"), f.path("adapter"), f.path("one"), "--max_shard_size", "1GB"});
  CHECK(std::filesystem::exists(f.path("one") + "/model.safetensors"));
}

TEST_CASE("a merge that went on reports all of its files") {
  const MergeFixture f;
  convert_json(
      {"weights", f.path("model"), f.path("sharded"), "--to", "bf16", "--max_shard_size", "100KB"});
  const auto settings = lora_settings(kAttention);
  write_adapter(f.path("adapter"), settings, random_adapter(settings, f.config));
  const auto whole = convert_json({"merge", f.path("sharded"), f.path("adapter"), f.path("whole")});
  // The largest file cannot be written, those before it can.
  std::uintmax_t largest = 0;
  for (const auto& entry : std::filesystem::directory_iterator(f.path("whole"))) {
    if (entry.path().extension() == ".safetensors") largest = std::max(largest, entry.file_size());
  }
  RunOptions options;
  options.in_child = [largest] {
    const rlimit limit{largest - 1, largest - 1};
    setrlimit(RLIMIT_FSIZE, &limit);
  };
  const std::vector<std::string> command{"merge", f.path("sharded"), f.path("adapter"),
                                         f.path("out")};
  const Outcome stopped = convert(command, options);
  REQUIRE(stopped.exit_code == 4);
  REQUIRE_MESSAGE(stopped.err.find("files are whole in") != std::string::npos, stopped.err);
  auto resume = command;
  resume.emplace_back("--resume");
  const auto rest = convert_json(resume);
  CHECK(rest.at("bytes_written") < whole.at("bytes_written"));
  for (const char* key : {"max_change", "max_change_tensor", "rounding_lost", "max_abs_error"}) {
    INFO(key);
    CHECK(rest.at(key) == whole.at(key));
  }
}

TEST_CASE("a dry run says what would change and writes nothing") {
  const MergeFixture f;
  const auto settings = lora_settings(kAttention);
  write_adapter(f.path("adapter"), settings, random_adapter(settings, f.config));
  const auto before = f.names();
  const auto json =
      convert_json({"merge", f.path("model"), f.path("adapter"), f.path("out"), "--dry_run"});
  CHECK(json.at("weights_changed") == 3 * 5);
  CHECK(f.names() == before);
}

}  // namespace
