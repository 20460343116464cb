// GGUF files: every rule fires on its mistake, and none on sound files.
#include <functional>
#include <set>

#include "libcore/base/error.h"
#include "libcore/check/detect.h"
#include "libcore/check/gguf_target.h"
#include "tests/core/check/gguf_model.h"
#include "tests/core/io/gguf_fixtures.h"

using namespace ds::test;
using namespace ds::check;
using ds::GgmlType;
using ds::GgufMla;
namespace fs = std::filesystem;

namespace {

// Rules that a test below has seen.
std::set<std::string>& seen() {
  static std::set<std::string> names;
  return names;
}

std::vector<Finding> check_file(const fs::path& path, bool deep = false,
                                const ds::ModelConfig* base = nullptr) {
  Findings findings;
  const Detected detected = detect(path);
  const DeepOptions options{.threads = 2, .progress = {}};
  const GgufTarget target(detected.path, findings);
  if (detected.kind == TargetKind::kGgufAdapter) {
    check_gguf_adapter(target, base, deep ? &options : nullptr, findings);
  } else {
    REQUIRE(detected.kind == TargetKind::kGguf);
    check_gguf(target, deep ? &options : nullptr, findings);
  }
  return findings.sorted();
}

Finding expect(const std::vector<Finding>& findings, const std::string& rule, bool alone = true) {
  return expect_finding(findings, rule, seen(), alone);
}

// Bytes of a file of two F32 tensors of 8 values each, at the given offsets.
std::string two_tensors(std::uint64_t first, std::uint64_t second, std::size_t data = 64) {
  return GgufBytes()
             .start(2, 0)
             .tensor("a", {8}, 0, first)
             .tensor("b", {8}, 0, second)
             .pad()
             .bytes() +
         std::string(data, '\0');
}
std::string one_tensor(const std::vector<std::uint64_t>& dims, std::uint32_t type) {
  return GgufBytes().start(1, 0).tensor("a", dims, type, 0).pad().bytes() + std::string(64, '\0');
}

void expect_bytes(const fs::path& path, const std::string& bytes, const std::string& rule) {
  write_text(path, bytes);
  expect(check_file(path), rule);
}

}  // namespace

TEST_CASE("sound files of every kind: nothing but what a legacy file is") {
  const TempFolder folder("gguf-sound");
  for (const TinyModel& tiny :
       {TinyModel{}, TinyModel{.q_lora = false}, TinyModel{.v2 = true}, TinyModel{.tied = true},
        TinyModel{.layers = 4, .shared_experts = 2}}) {
    for (const GgufMla mla : {GgufMla::kSplit, GgufMla::kUnsplit}) {
      const fs::path path = folder.root() / "m.gguf";
      sound_gguf(mla, tiny).write(path);
      const auto findings = check_file(path, true);
      if (mla == GgufMla::kUnsplit) {
        expect(findings, "gguf-legacy-mla");
        CHECK(findings.size() == 1);
      } else {
        CHECK_MESSAGE(findings.empty(), describe(findings));
      }
    }
  }
  sound_gguf().write_split(folder.root() / "parts", "m");
  write_text(folder.root() / "parts" / "config.json", "{}");  // many repositories have it beside
  for (const char* name : {"", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
    const auto findings = check_file(folder.root() / "parts" / name, true);
    CHECK_MESSAGE(findings.empty(), describe(findings));
  }
}

TEST_CASE("containers") {
  const TempFolder folder("gguf-container");
  const fs::path path = folder.root() / "m.gguf";
  const std::string sound = sound_gguf().bytes();
  const auto patched = [&](std::size_t at, const std::string& bytes) {
    std::string text = sound;
    return text.replace(at, bytes.size(), bytes);
  };
  expect_bytes(path, patched(0, "XXXX"), "gguf-magic");
  expect_bytes(path, patched(4, std::string("\x09\0\0\0", 4)), "gguf-version");
  expect_bytes(path, patched(8, std::string("\0\0\0\0\0\1\0\0", 8)), "gguf-counts");
  expect_bytes(path, patched(16, std::string("\0\0\0\0\0\1\0\0", 8)), "gguf-counts");
  expect_bytes(path, sound.substr(0, 20), "gguf-truncated");
  expect_bytes(path, sound.substr(0, sound.size() - 40), "gguf-truncated");
  expect_bytes(path, "", "gguf-truncated");
  expect_bytes(path, patched(32, "\xff"), "gguf-text");
  expect_bytes(path, patched(32 + std::string("general.architecture").size(), "\x4d"),
               "gguf-value");
  GgufSpec twice = sound_gguf();
  twice.keys.emplace_back("general.type", std::string("model"));
  expect_bytes(path, twice.bytes(), "gguf-duplicate");
  GgufSpec alignment = sound_gguf();
  alignment.key("general.alignment") = std::int64_t{33};
  expect_bytes(path, alignment.bytes(), "gguf-alignment");
  expect_bytes(path, one_tensor({0}, 0), "gguf-tensor-size");
  expect_bytes(path, one_tensor({1, 1, 1, 1, 1}, 0), "gguf-tensor-size");
  expect_bytes(path, one_tensor({33}, 8), "gguf-tensor-size");
  expect_bytes(path, one_tensor({8}, 999), "gguf-tensor-type");
  expect_bytes(path, two_tensors(0, 0), "gguf-overlap");
  expect_bytes(path, two_tensors(0, 33, 96), "gguf-misaligned");
  expect_bytes(path, two_tensors(0, 64, 96), "gguf-hole");
  expect_bytes(path, sound + std::string(64, '\0'), "gguf-trailing");
  write_text(path, "version https://git-lfs.github.com/spec/v1\n");
  CHECK(find(check_file(path), "lfs-pointer") != nullptr);
}

TEST_CASE("parts of a split") {
  const TempFolder folder("gguf-parts");
  const fs::path one = folder.root() / "m-00001-of-00002.gguf";
  const fs::path two = folder.root() / "m-00002-of-00002.gguf";
  const GgufSpec sound = sound_gguf();
  sound.write_split(folder.root(), "m");
  const std::string second = read_text(two);
  fs::remove(two);
  CHECK(expect(check_file(one), "gguf-part-missing").file == two.string());
  // The tensors of the missing part are no findings of their own; the keys are in the first one.
  write_text(two, second);
  fs::rename(one, folder.root() / "away");
  expect(check_file(two), "gguf-part-missing");
  fs::rename(folder.root() / "away", one);
  // Renamed.
  fs::copy_file(one, two, fs::copy_options::overwrite_existing);
  const auto renamed = check_file(one);
  expect(renamed, "gguf-part-keys", false);
  expect(renamed, "gguf-part-overlap", false);
  write_text(two, second);
  fs::copy_file(two, folder.root() / "m-00003-of-00003.gguf");
  expect(check_file(one), "gguf-stray-part");
  // One part under the name of a whole file, and a count that is wrong.
  fs::create_directory(folder.root() / "alone");
  fs::copy_file(one, folder.root() / "alone" / "m.gguf");
  expect(check_file(folder.root() / "alone" / "m.gguf"), "gguf-part-keys", false);
  GgufSpec fewer = sound;
  fewer.drop_tensor("output_norm.weight");
  fs::create_directory(folder.root() / "fewer");
  fewer.write_split(folder.root() / "fewer", "m");
  fs::copy_file(one, folder.root() / "fewer" / one.filename(),
                fs::copy_options::overwrite_existing);
  expect(check_file(folder.root() / "fewer"), "gguf-part-keys", false);
  // Two models in a folder.
  sound.write(folder.root() / "fewer" / "other.gguf");
  CHECK_THROWS_AS(check_file(folder.root() / "fewer"), ds::Error);
}

TEST_CASE("keys, tensors and vocabulary") {
  const TempFolder folder("gguf-architecture");
  const fs::path path = folder.root() / "m.gguf";
  const auto spoilt = [&](const std::string& rule, const std::function<void(GgufSpec&)>& spoil,
                          bool alone = true, GgufMla mla = GgufMla::kSplit) {
    GgufSpec spec = sound_gguf(mla);
    spoil(spec);
    spec.write(path);
    return expect(check_file(path), rule, alone);
  };
  const auto number = [](std::int64_t value) { return GgufSpec::Value(value); };
  const auto text = [](const char* value) { return GgufSpec::Value(std::string(value)); };

  spoilt("gguf-architecture", [&](GgufSpec& s) { s.key("general.architecture") = text("llama"); });
  spoilt("gguf-architecture", [&](GgufSpec& s) { s.key("general.type") = text("mmproj"); });
  for (const char* name :
       {"block_count", "attention.kv_lora_rank", "leading_dense_block_count",
        "attention.key_length_mla", "expert_used_count", "rope.scaling.original_context_length"}) {
    const std::string key = std::string("deepseek2.") + name;
    CHECK(spoilt("gguf-key-missing", [&](GgufSpec& s) { s.drop_key(key); }).key == key);
    CHECK(spoilt("gguf-key-type", [&](GgufSpec& s) { s.key(key) = text("3"); }).key == key);
  }
  CHECK(spoilt("gguf-key-value", [&](GgufSpec& s) {
          s.key("deepseek2.vocab_size") = number(299);
        }).key == "deepseek2.vocab_size");
  spoilt("gguf-key-value", [&](GgufSpec& s) { s.key("deepseek2.block_count") = number(4000000); });
  spoilt("gguf-key-value", [&](GgufSpec& s) { s.key("deepseek2.expert_gating_func") = number(1); });
  spoilt("gguf-key-value", [&](GgufSpec& s) { s.key("deepseek2.expert_gating_func") = number(7); });
  for (const char* name :
       {"attention.head_count_kv", "attention.key_length", "attention.value_length"}) {
    const std::string key = std::string("deepseek2.") + name;
    CHECK(spoilt("gguf-key-contradicts", [&](GgufSpec& s) { s.key(key) = number(3); }).key == key);
  }
  spoilt("gguf-key-default", [](GgufSpec& s) { s.drop_key("deepseek2.expert_group_count"); });
  spoilt("gguf-yarn",
         [](GgufSpec& s) { s.drop_key("deepseek2.rope.scaling.yarn_log_multiplier"); });
  spoilt("gguf-yarn", [](GgufSpec& s) { s.key("deepseek2.rope.scaling.factor") = 3.0; });

  spoilt("gguf-missing-tensor", [](GgufSpec& s) { s.drop_tensor("blk.1.attn_k_b.weight"); });
  spoilt("gguf-missing-tensor", [](GgufSpec& s) { s.drop_tensor("token_embd.weight"); });
  spoilt("gguf-missing-tensor", [](GgufSpec& s) { s.drop_tensor("blk.2.ffn_down_shexp.weight"); });
  spoilt("gguf-shape", [](GgufSpec& s) {
    auto& shape = s.tensor("blk.0.ffn_gate.weight").shape;
    std::swap(shape[0], shape[1]);
  });
  spoilt("gguf-shape", [](GgufSpec& s) {
    auto& shape = s.tensor("blk.1.ffn_up_exps.weight").shape;
    shape[0] -= 1;
  });
  spoilt("gguf-unknown-tensor", [](GgufSpec& s) {
    s.tensors.push_back({"blk.1.attn_q.weight", GgmlType::kF32, {4, 4}});
  });
  CHECK(spoilt("gguf-unknown-tensor", [](GgufSpec& s) {
          s.tensors.push_back({"blk.3.attn_norm.weight", GgmlType::kF32, {64}});
        }).message.find("beyond the 3") != std::string::npos);
  spoilt("gguf-must-be-f32",
         [](GgufSpec& s) { s.tensor("blk.1.ffn_gate_inp.weight").type = GgmlType::kF16; });
  spoilt("gguf-file-type", [&](GgufSpec& s) { s.key("general.file_type") = number(1); });
  spoilt("gguf-quantised-without-version",
         [](GgufSpec& s) { s.tensor("blk.0.ffn_up.weight").type = GgmlType::kQ80; });

  spoilt("gguf-no-tokenizer", [](GgufSpec& s) {
    std::erase_if(s.keys, [](const auto& key) { return key.first.starts_with("tokenizer."); });
  });
  spoilt("gguf-pre-tokenizer", [](GgufSpec& s) { s.drop_key("tokenizer.ggml.pre"); });
  spoilt("gguf-pre-tokenizer", [&](GgufSpec& s) { s.key("tokenizer.ggml.pre") = text("default"); });
  spoilt("gguf-vocabulary", [](GgufSpec& s) { s.drop_key("tokenizer.ggml.tokens"); });
  spoilt("gguf-vocabulary", [](GgufSpec& s) { s.drop_key("tokenizer.ggml.merges"); });
  spoilt("gguf-vocabulary", [](GgufSpec& s) { s.drop_key("tokenizer.ggml.token_type"); });
  spoilt("gguf-vocabulary", [](GgufSpec& s) {
    std::get<std::vector<std::int32_t>>(s.key("tokenizer.ggml.token_type")).pop_back();
  });
  spoilt("gguf-vocabulary", [](GgufSpec& s) {
    std::get<std::vector<std::string>>(s.key("tokenizer.ggml.tokens")).pop_back();
    std::get<std::vector<std::int32_t>>(s.key("tokenizer.ggml.token_type")).pop_back();
  });
  spoilt("gguf-duplicate-token", [](GgufSpec& s) {
    std::get<std::vector<std::string>>(s.key("tokenizer.ggml.tokens")).back() = "a";
  });
  spoilt("gguf-token-type", [](GgufSpec& s) {
    std::get<std::vector<std::int32_t>>(s.key("tokenizer.ggml.token_type")).back() = 7;
  });
  spoilt("gguf-token-type", [](GgufSpec& s) {
    std::get<std::vector<std::int32_t>>(s.key("tokenizer.ggml.token_type"))[6] = 1;
  });
  for (const char* merge : {"ab", "a b c", "a x", "b a", " ab"}) {
    spoilt("gguf-merges", [&](GgufSpec& s) {
      s.key("tokenizer.ggml.merges") = std::vector<std::string>{"a b", merge};
    });
  }
  spoilt("gguf-token-id",
         [&](GgufSpec& s) { s.key("tokenizer.ggml.padding_token_id") = number(5000); });
  spoilt("gguf-token-id", [&](GgufSpec& s) { s.key("tokenizer.ggml.bos_token_id") = number(9); });
  spoilt("gguf-token-id", [](GgufSpec& s) { s.drop_key("tokenizer.ggml.eos_token_id"); });
  // The chat template has the rules of every chat template.
  spoilt("template-missing", [](GgufSpec& s) { s.drop_key("tokenizer.chat_template"); });
  spoilt(
      "template-near-miss",
      [&](GgufSpec& s) { s.key("tokenizer.chat_template") = text("{{ '<|User|>' }}"); }, false);
  spoilt("template-token-missing", [&](GgufSpec& s) {
    auto& tokens = std::get<std::vector<std::string>>(s.key("tokenizer.ggml.tokens"));
    std::find(tokens.begin(), tokens.end(), "<\uff5cUser\uff5c>")->assign("other");
  });
}

TEST_CASE("many alike become one finding") {
  const TempFolder folder("gguf-alike");
  GgufSpec spec = sound_gguf(GgufMla::kSplit, {.layers = 9});
  for (int layer = 0; layer < 9; ++layer) {
    spec.drop_tensor("blk." + std::to_string(layer) + ".attn_output.weight");
  }
  spec.write(folder.root() / "m.gguf");
  const auto findings = check_file(folder.root() / "m.gguf");
  REQUIRE_MESSAGE(findings.size() == 1, describe(findings));
  CHECK(findings[0].message.find("8 more alike") != std::string::npos);
}

TEST_CASE("--deep: values that are not finite, by type") {
  const TempFolder folder("gguf-deep");
  const fs::path path = folder.root() / "m.gguf";
  GgufSpec spec = sound_gguf();
  spec.not_a_number = {"blk.1.ffn_down_exps.weight"};
  spec.write(path);
  CHECK(check_file(path).empty());
  CHECK(expect(check_file(path, true), "gguf-not-finite").tensor == "blk.1.ffn_down_exps.weight");
  for (const GgmlType type : {GgmlType::kF16, GgmlType::kBF16, GgmlType::kQ80}) {
    spec = sound_gguf();
    spec.tensor("token_embd.weight").type = type;
    spec.key("general.quantization_version") = std::int64_t{2};
    std::string bytes = spec.bytes();
    spec.write(path);
    CHECK(find(check_file(path, true), "gguf-not-finite") == nullptr);
    const ds::GgufFile file = ds::GgufFile::open(path);
    const std::size_t at = file.find("token_embd.weight")->begin;
    // The second value, or the scale of the second block: all bits set is NaN in each.
    bytes.replace(at + (type == GgmlType::kQ80 ? 34 : 2), 2, "\xff\xff");
    write_text(path, bytes);
    const Finding& finding = expect(check_file(path, true), "gguf-not-finite");
    CHECK(finding.message.find("the first at 1") != std::string::npos);
  }
}

TEST_CASE("adapters: keys, pairs, and the base they are for") {
  const TempFolder folder("gguf-adapter");
  const fs::path path = folder.root() / "a.gguf";
  const ds::ModelConfig base = gguf_config();
  sound_gguf_adapter(base).write(path);
  CHECK(detect(path).kind == TargetKind::kGgufAdapter);
  const auto none = check_file(path, true, &base);
  CHECK_MESSAGE(none.empty(), describe(none));
  const auto spoilt = [&](const std::string& rule, const std::function<void(GgufSpec&)>& spoil,
                          bool deep = false) {
    GgufSpec spec = sound_gguf_adapter(base);
    spoil(spec);
    spec.write(path);
    expect(check_file(path, deep, &base), rule);
  };
  spoilt("gguf-adapter-keys", [](GgufSpec& s) { s.drop_key("adapter.type"); });
  spoilt("gguf-adapter-keys", [](GgufSpec& s) { s.key("adapter.lora.alpha") = 0.0; });
  spoilt("gguf-adapter-keys", [](GgufSpec& s) { s.drop_key("adapter.lora.alpha"); });
  spoilt("gguf-architecture", [](GgufSpec& s) { s.drop_key("general.architecture"); });
  const std::string output = "blk.0.attn_output.weight.lora_";
  spoilt("half-pair", [&](GgufSpec& s) { s.drop_tensor(output + "b"); });
  spoilt("pair-rank", [&](GgufSpec& s) { s.tensor(output + "b").shape.back() = 5; });
  spoilt("adapter-shape", [&](GgufSpec& s) { s.tensor(output + "a").shape.back() += 1; });
  spoilt("adapter-shape", [&](GgufSpec& s) { s.tensor(output + "b").shape.front() += 1; });
  spoilt("key-unmatched", [&](GgufSpec& s) {
    s.tensor(output + "a").name = "blk.77.attn_output.weight.lora_a";
    s.tensor(output + "b").name = "blk.77.attn_output.weight.lora_b";
  });
  spoilt("key-matches-nothing", [&](GgufSpec& s) {
    std::erase_if(s.tensors, [&](const auto& tensor) { return !tensor.name.starts_with(output); });
    for (auto& tensor : s.tensors) tensor.name.insert(4, "9");
  });
  spoilt("full-weight", [](GgufSpec& s) {
    s.tensors.push_back({"output.weight", GgmlType::kF32, {300, 64}});
  });
  spoilt("adapter-dtype", [&](GgufSpec& s) { s.tensor(output + "a").type = GgmlType::kQ80; });
  spoilt(
      "adapter-not-finite", [&](GgufSpec& s) { s.not_a_number = {output + "a"}; }, true);
  spoilt(
      "adapter-untrained", [](GgufSpec& s) { s.fill = 0.0F; }, true);
}

TEST_CASE("every rule on GGUF files was seen above") {
  if (seen().empty()) {
    MESSAGE("skipped: the cases above were not run");
    return;
  }
  for (const Rule& rule : rules()) {
    if (rule.id < "DS400" || rule.id >= "DS450") continue;
    CHECK_MESSAGE(seen().count(std::string(rule.name)) == 1, rule.name);
  }
}
