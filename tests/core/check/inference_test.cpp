// Folders in the layout of DeepSeek's inference demo.
#include <functional>
#include <set>

#include "libcore/check/detect.h"
#include "libcore/check/inference_target.h"
#include "tests/core/check/shards_fixture.h"

using namespace ds::test;
using namespace ds::check;
namespace fs = std::filesystem;
using nlohmann::json;

namespace {

std::set<std::string>& seen() {
  static std::set<std::string> names;
  return names;
}

std::vector<Finding> check_shards(const fs::path& folder, bool deep = false) {
  Findings findings;
  REQUIRE(detect(folder).kind == TargetKind::kInference);
  const DeepOptions options{.threads = 2, .progress = {}};
  const InferenceTarget target(folder, findings);
  check_inference(target, deep ? &options : nullptr, findings);
  return findings.sorted();
}

Finding expect(const std::vector<Finding>& findings, const std::string& rule, bool alone = true) {
  return expect_finding(findings, rule, seen(), alone);
}

constexpr const char* kNorm = "layers.1.attn_norm.weight";
constexpr const char* kOutput = "layers.1.attn.wo.weight";

}  // namespace

TEST_CASE("sound shards: nothing") {
  const TempFolder folder("inference-sound");
  const fs::path path = folder.root() / "m";
  for (const std::int64_t ranks : {1, 2, 4}) {
    for (const TinyModel& tiny : {TinyModel{}, TinyModel{.v2 = true}, TinyModel{.q_lora = false}}) {
      write_shards(path, sound_shards(ranks, false, tiny));
      const auto findings = check_shards(path, true);
      CHECK_MESSAGE(findings.empty(), describe(findings));
    }
  }
  write_shards(path, sound_shards(1, true));
  const auto findings = check_shards(path, true);
  CHECK_MESSAGE(findings.empty(), describe(findings));
  // Named by one of its files, or by its config.
  CHECK(detect(path / "config.json").kind == TargetKind::kInference);
  CHECK(detect(path / "model0-mp1.safetensors").kind == TargetKind::kShard);
}

TEST_CASE("files") {
  const TempFolder folder("inference-files");
  const fs::path path = folder.root() / "m";
  write_shards(path, sound_shards(2));
  fs::rename(path / "model1-mp2.safetensors", folder.root() / "away");
  // Its tensors are no findings of their own.
  expect(check_shards(path, true), "inference-shard-missing");
  fs::rename(folder.root() / "away", path / "model1-mp2.safetensors");
  fs::copy_file(path / "model1-mp2.safetensors", path / "model3-mp8.safetensors");
  expect(check_shards(path), "inference-mixed-sets");
  fs::rename(path / "model3-mp8.safetensors", path / "model2-mp2.safetensors");
  expect(check_shards(path), "inference-stray-file");
  fs::remove(path / "model2-mp2.safetensors");
  fs::remove(path / "config.json");
  expect(check_shards(path), "inference-without-config");
  fs::resize_file(path / "model0-mp2.safetensors", 1000);
  CHECK(find(check_shards(path, true), "truncated-file") != nullptr);
}

TEST_CASE("tensors") {
  const TempFolder folder("inference-tensors");
  const fs::path path = folder.root() / "m";
  const auto spoilt = [&](const std::string& rule,
                          const std::function<void(std::vector<Model>&)>& spoil, bool alone = true,
                          bool deep = false, std::int64_t ranks = 2, bool fp8 = false) {
    std::vector<Model> shards = sound_shards(ranks, fp8);
    spoil(shards);
    write_shards(path, shards);
    return expect(check_shards(path, deep), rule, alone);
  };
  spoilt(
      "inference-name",
      [](auto& shards) {
        for (Model& shard : shards) shard.rename(kNorm, "layers.1.other.weight");
      },
      false);
  CHECK(spoilt(
            "inference-name",
            [](auto& shards) {
              for (Model& shard : shards) {
                shard.rename(kNorm, "model.layers.1.input_layernorm.weight");
              }
            },
            false)
            .message.find("Hugging Face") != std::string::npos);
  CHECK(spoilt("inference-not-in-all", [](auto& shards) {
          shards[1].tensors.erase(kNorm);
        }).file.ends_with("model1-mp2.safetensors"));
  spoilt("inference-not-in-all", [](auto& shards) { shards[0].tensors.erase(kOutput); });
  spoilt("inference-ranks-differ",
         [](auto& shards) { shards[1].set(kNorm, "F32", shards[1].at(kNorm).shape); });
  spoilt(
      "inference-ranks-differ",
      [](auto& shards) {
        auto shape = shards[1].at(kOutput).shape;
        shape[1] *= 2;
        shards[1].set(kOutput, "BF16", shape);
      },
      false);
  spoilt("inference-shape", [](auto& shards) {
    auto shape = shards[1].at(kOutput).shape;
    shape[1] *= 2;
    for (Model& shard : shards) shard.set(kOutput, "BF16", shape);
  });
  spoilt("inference-missing-tensor", [](auto& shards) {
    for (Model& shard : shards) shard.tensors.erase(kOutput);
  });
  CHECK(spoilt("inference-missing-tensor", [](auto& shards) {
          shards[1].tensors.erase("layers.1.ffn.experts.5.w2.weight");
        }).tensor == "layers.1.ffn.experts.5.w2.weight");
  spoilt("inference-unknown-tensor", [](auto& shards) {
    for (Model& shard : shards)
      shard.set("layers.7.attn_norm.weight", "BF16", {64}, shard.at(kNorm).shard);
  });
  spoilt("inference-unknown-tensor", [](auto& shards) {
    shards[1].set("layers.1.ffn.experts.8.w2.weight", "BF16", {64, 32}, shards[1].at(kNorm).shard);
  });
  CHECK(spoilt("inference-expert-rank", [](auto& shards) {
          const char* name = "layers.1.ffn.experts.5.w2.weight";
          shards[0].tensors[name] = shards[1].at(name);
          shards[0].tensors[name].shard = "model0-mp2.safetensors";
          shards[1].tensors.erase(name);
        }).message.find("rank 1 of 2") != std::string::npos);
  spoilt(
      "inference-not-divisible",
      [](auto& shards) {
        for (Model& shard : shards) shard.config["vocab_size"] = 299;
      },
      false);
  spoilt(
      "inference-copies-differ", [](auto& shards) { shards[1].at(kNorm).data[5] ^= 1; }, true,
      true);

  const std::string scale = "layers.1.attn.wo.scale";
  const auto fp8 = [&](const std::function<void(Model&)>& spoil) {
    spoilt(
        "inference-scale", [&](auto& shards) { spoil(shards[0]); }, false, false, 1, true);
  };
  fp8([&](Model& model) { model.tensors.erase(scale); });
  fp8([&](Model& model) { model.set(scale, "F32", {7, 1}); });
  fp8([&](Model& model) { model.set(scale, "BF16", model.at(scale).shape); });
  fp8([&](Model& model) { model.set(kOutput, "BF16", model.at(kOutput).shape); });
  fp8([&](Model& model) { model.tensors.erase(kOutput); });
  // 2 ranks cut the blocks of a model this small.
  CHECK(spoilt(
            "inference-block-cut", [](auto&) {}, false, false, 2, true)
            .message.find("multiple of 128") != std::string::npos);
  // Data that is not finite has the rules of every safetensors file.
  spoilt(
      "weight-not-finite",
      [](auto& shards) {
        for (Model& shard : shards) shard.at(kNorm).data.replace(0, 2, "\xff\xff");
      },
      true, true);
}

TEST_CASE("the demo's own config") {
  const TempFolder folder("inference-demo");
  const fs::path path = folder.root() / "m";
  std::vector<Model> shards = sound_shards(2);
  const json& hf = shards[0].config;
  const json demo{{"vocab_size", hf.at("vocab_size")},
                  {"dim", hf.at("hidden_size")},
                  {"inter_dim", hf.at("intermediate_size")},
                  {"moe_inter_dim", hf.at("moe_intermediate_size")},
                  {"n_layers", hf.at("num_hidden_layers")},
                  {"n_dense_layers", hf.at("first_k_dense_replace")},
                  {"n_heads", hf.at("num_attention_heads")},
                  {"n_routed_experts", hf.at("n_routed_experts")},
                  {"n_shared_experts", hf.at("n_shared_experts")},
                  {"n_activated_experts", hf.at("num_experts_per_tok")},
                  {"n_expert_groups", hf.at("n_group")},
                  {"n_limited_groups", hf.at("topk_group")},
                  {"route_scale", 2.5},
                  {"score_func", "sigmoid"},
                  {"q_lora_rank", hf.at("q_lora_rank")},
                  {"kv_lora_rank", hf.at("kv_lora_rank")},
                  {"qk_nope_head_dim", hf.at("qk_nope_head_dim")},
                  {"qk_rope_head_dim", hf.at("qk_rope_head_dim")},
                  {"v_head_dim", hf.at("v_head_dim")}};
  for (Model& shard : shards) shard.config = demo;
  write_shards(path, shards);
  const auto findings = check_shards(path);
  CHECK_MESSAGE(findings.empty(), describe(findings));
  for (Model& shard : shards) shard.config["inter_dim"] = 5;
  write_shards(path, shards);
  expect(check_shards(path), "inference-not-divisible");
  for (Model& shard : shards) shard.config["inter_dim"] = 6;
  write_shards(path, shards);
  expect(check_shards(path), "inference-shape");
}

TEST_CASE("every rule on the inference layout was seen above") {
  if (seen().empty()) {
    MESSAGE("skipped: the cases above were not run");
    return;
  }
  for (const Rule& rule : rules()) {
    if (rule.id < "DS450" || rule.id >= "DS480") continue;
    CHECK_MESSAGE(seen().count(std::string(rule.name)) == 1, rule.name);
  }
}
