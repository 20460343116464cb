// Every rule on checkpoints has a model that it finds, in the right place, and one that it leaves
// alone.
#include <doctest/doctest.h>

#include <functional>
#include <set>

#include "tests/core/check/model_fixture.h"

namespace {

using namespace ds;
using namespace ds::test;
using check::Finding;
using check::RuleGroup;
using check::Severity;
namespace fs = std::filesystem;
using nlohmann::json;

// A spoilt model: `model` before it is written, `files` after.
struct Case {
  const char* rule;
  const char* place;  // part of file, tensor or key of the finding
  std::function<void(Model&)> model;
  std::function<void(const fs::path&)> files;
};

constexpr const char* kQ = "model.layers.1.self_attn.q_b_proj.weight";
constexpr const char* kQScale = "model.layers.1.self_attn.q_b_proj.weight_scale_inv";
constexpr const char* kExpert = "model.layers.1.mlp.experts.3.up_proj.weight";
constexpr const char* kIndex = "model.safetensors.index.json";

// Replaces `from` by `to` of the same or another length in the header of shard 1; the header's
// length is set anew.
std::function<void(const fs::path&)> edit_header(const std::string& from, const std::string& to) {
  return [=](const fs::path& folder) {
    std::string bytes = read_text(folder / kShard1);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    std::string header = bytes.substr(8, length);
    const std::size_t at = header.find(from);
    REQUIRE_MESSAGE(at != std::string::npos, from);
    header.replace(at, from.size(), to);
    write_text(folder / kShard1, Model::file_bytes(header, bytes.substr(8 + length)));
  };
}
std::function<void(const fs::path&)> edit_bytes(const std::function<void(std::string&)>& edit,
                                                const char* file = kShard1) {
  return [=](const fs::path& folder) {
    std::string bytes = read_text(folder / file);
    edit(bytes);
    write_text(folder / file, bytes);
  };
}
std::function<void(const fs::path&)> replace_file(const char* name, const std::string& text) {
  return [=](const fs::path& folder) { write_text(folder / name, text); };
}
// A file of one tensor entry, given as JSON text, with `data` bytes behind it.
std::function<void(const fs::path&)> entry(const std::string& text, std::size_t data) {
  return [=](const fs::path& folder) {
    write_text(folder / kShard1, Model::file_bytes("{" + text + "}", std::string(data, '\0')));
  };
}

const std::vector<Case>& container_cases() {
  static const std::vector<Case> kCases{
      {"no-checkpoint", "", [](Model& m) { m.index = false; }, {}},
      {"truncated-file", kShard1, {}, edit_bytes([](std::string& b) { b.resize(b.size() - 2); })},
      {"file-too-short", kShard1, {}, replace_file(kShard1, "abc")},
      {"header-too-long", kShard1, {}, edit_bytes([](std::string& b) { b[5] = '\x7f'; })},
      {"header-not-utf8", kShard1, {}, edit_bytes([](std::string& b) { b[10] = '\xff'; })},
      {"header-syntax", kShard1, {}, edit_bytes([](std::string& b) { b[8] = '['; })},
      {"unknown-dtype", "", {}, edit_header("\"BF16\"", "\"BF17\"")},
      {"bad-metadata", kShard1, {}, edit_header("\"pt\"", "3")},
      {"duplicate-name",
       "lm_head.weight",
       {},
       edit_header("\"lm_head.weight\":",
                   "\"lm_head.weight\":{\"dtype\":\"F32\",\"shape\":[0],"
                   "\"data_offsets\":[0,0]},\"lm_head.weight\":")},
      {"offsets-reversed",
       "a",
       {},
       entry(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[4,0]})", 4)},
      {"hole-in-data",
       "b",
       {},
       entry(R"("a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},)"
             R"("b":{"dtype":"F32","shape":[1],"data_offsets":[8,12]})",
             12)},
      {"overlapping-tensors",
       "b",
       {},
       entry(R"("a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]},)"
             R"("b":{"dtype":"F32","shape":[2],"data_offsets":[4,12]})",
             12)},
      {"size-overflow",
       "a",
       {},
       entry(R"("a":{"dtype":"F32","shape":[4611686018427387904,16],"data_offsets":[0,4]})", 4)},
      {"partial-bytes",
       "a",
       {},
       entry(R"("a":{"dtype":"F4","shape":[3],"data_offsets":[0,2]})", 2)},
      {"size-mismatch",
       "a",
       {},
       entry(R"("a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]})", 4)},
      {"trailing-bytes", kShard1, {}, edit_bytes([](std::string& b) { b += "xy"; })},
      {"index-syntax",
       kIndex,
       {},
       edit_bytes([](std::string& b) { b.resize(b.size() / 2); }, kIndex)},
      {"index-without-map", kIndex, {}, replace_file(kIndex, "{\"metadata\":{}}")},
      {"index-duplicate",
       kIndex,
       {},
       replace_file(kIndex, R"({"weight_map":{"a":"x.safetensors","a":"y.safetensors"}})")},
      {"unsafe-shard-name", kIndex, [](Model& m) { m.map[kQ] = "../model.safetensors"; }, {}},
      {"missing-shard", kShard2, {}, [](const fs::path& f) { fs::remove(f / kShard2); }},
      {"stale-index",
       kIndex,
       {},
       [](const fs::path& f) { fs::rename(f / kShard2, f / "other.safetensors"); }},
      {"tensor-not-in-shard", kQ, [](Model& m) { m.map[kQ] = kShard2; }, {}},
      {"tensor-not-in-index", kQ, [](Model& m) { m.map[kQ] = ""; }, {}},
      {"duplicate-tensor",
       "lm_head.weight",
       {},
       [](const fs::path& f) {
         Model other;
         other.set("lm_head.weight", "BF16", {300, 64}, "extra.safetensors");
         other.set("x", "BF16", {1}, "extra.safetensors");
         other.index = false;
         other.write(f / "other");
         fs::rename(f / "other" / "extra.safetensors", f / "extra.safetensors");
         json index = json::parse(read_text(f / kIndex));
         index["weight_map"]["x"] = "extra.safetensors";
         write_text(f / kIndex, index.dump());
       }},
      {"wrong-total-size",
       kIndex,
       [](Model& m) {
         m.index_metadata = {{"total_size", 17}};
       },
       {}},
      {"stray-file",
       "other.safetensors",
       {},
       [](const fs::path& f) { fs::copy(f / kShard2, f / "other.safetensors"); }},
      {"metadata-format", "format", [](Model& m) { m.metadata = nullptr; }, {}},
      {"metadata-format",
       "format",
       [](Model& m) {
         m.metadata = {{"format", "tf"}};
       },
       {}},
      {"no-total-size", "total_size", [](Model& m) { m.index_metadata = json::object(); }, {}},
      {"shard-count",
       kIndex,
       [](Model& m) {
         for (auto& [name, tensor] : m.tensors) tensor.shard = kShard1;
       },
       {}},
      {"misaligned-tensor",
       "a",
       {},
       entry(
           R"("__metadata__":{"format":"pt"},"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},)"
           R"("b":{"dtype":"F32","shape":[1],"data_offsets":[1,5]})",
           5)},
      {"lfs-pointer",
       kShard1,
       {},
       replace_file(kShard1,
                    "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9\n")},
      {"lfs-pointer",
       "tokenizer.json",
       {},
       replace_file("tokenizer.json", "version https://git-lfs.github.com/spec/v1\n")},
      {"web-page", kShard1, {}, replace_file(kShard1, "<!DOCTYPE html><html></html>")},
      {"wrong-container", kShard1, {}, replace_file(kShard1, "PK\x03\x04 and so on and on")},
      {"partial-download", "x.incomplete", {}, replace_file("x.incomplete", "")},
      {"pickle-weights", "pytorch_model.bin", {}, replace_file("pytorch_model.bin", "")},
      {"dangling-link",
       kShard2,
       {},
       [](const fs::path& f) {
         fs::remove(f / kShard2);
         fs::create_symlink("../nowhere", f / kShard2);
       }},
      {"empty-tensor",
       kQ,
       [](Model& m) {
         m.set(kQ, "F8_E4M3", {0, 32});
       },
       {}},
      {"odd-name",
       "model.layers.1.mlp.gate.weight\u200b",
       [](Model& m) {
         m.set("model.layers.1.mlp.gate.weight\u200b", "BF16", {8, 64});
       },
       {}},
      {"empty-shard",
       "third.safetensors",
       {},
       [](const fs::path& f) {
         write_text(f / "third.safetensors",
                    Model::file_bytes(R"({"__metadata__":{"format":"pt"}})", ""));
         json index = json::parse(read_text(f / kIndex));
         index["weight_map"]["x"] = "third.safetensors";
         write_text(f / kIndex, index.dump());
       }},
  };
  return kCases;
}

std::function<void(Model&)> config(const char* key, const json& value) {
  return [=](Model& m) { m.config[key] = value; };
}

// A config with the sizes of the published V3 and no tensors that fit it.
void published_v3(Model& m) {
  m.config.update({{"hidden_size", 7168},
                   {"num_hidden_layers", 61},
                   {"n_routed_experts", 256},
                   {"vocab_size", 129280},
                   {"n_group", 8},
                   {"topk_group", 4},
                   {"num_experts_per_tok", 8},
                   {"routed_scaling_factor", 1.0},
                   {"first_k_dense_replace", 3},
                   {"num_attention_heads", 128},
                   {"num_key_value_heads", 128}});
}

const std::vector<Case>& architecture_cases() {
  static const std::vector<Case> kCases{
      {"config-missing",
       "config.json",
       {},
       [](const fs::path& f) { fs::remove(f / "config.json"); }},
      {"config-syntax", "config.json", {}, replace_file("config.json", "{\"a\":1,}")},
      {"config-syntax", "config.json", {}, replace_file("config.json", "[1]")},
      {"config-key", "topk_group", config("topk_group", 99), {}},
      {"config-key", "hidden_size", [](Model& m) { m.config.erase("hidden_size"); }, {}},
      {"config-key", "scoring_func", config("scoring_func", "softmax"), {}},
      {"distilled-model", "architectures", config("architectures", {"Qwen2ForCausalLM"}), {}},
      {"deepseek-v3.2", "architectures", config("architectures", {"DeepseekV32ForCausalLM"}), {}},
      {"deepseek-v3.2",
       "indexer",
       [](Model& m) {
         m.set("model.layers.1.self_attn.indexer.wk.weight", "BF16", {4, 64});
       },
       {}},
      {"deepseek-v4", "architectures", config("architectures", {"DeepseekV4ForCausalLM"}), {}},
      {"other-architecture", "architectures", config("architectures", {"KimiVLForCausalLM"}), {}},
      {"class-and-type", "architectures", config("model_type", "deepseek_v2"), {}},
      {"inference-config",
       "config.json",
       [](Model& m) {
         m.config = {{"dim", 64}, {"n_layers", 3}, {"vocab_size", 300}};
       },
       {}},
      {"missing-tensor", kQ, [](Model& m) { m.tensors.erase(kQ); }, {}},
      {"missing-tensor", "lm_head.weight", [](Model& m) { m.tensors.erase("lm_head.weight"); }, {}},
      {"missing-layer",
       "model.layers.1",
       [](Model& m) {
         std::erase_if(m.tensors,
                       [](const auto& item) { return item.first.starts_with("model.layers.1."); });
       },
       {}},
      {"missing-expert",
       "experts.3",
       [](Model& m) {
         std::erase_if(m.tensors, [](const auto& item) {
           return item.first.starts_with("model.layers.1.mlp.experts.3.");
         });
       },
       {}},
      {"unknown-tensor",
       "q_c_proj",
       [](Model& m) { m.rename(kQ, "model.layers.1.self_attn.q_c_proj.weight"); },
       {}},
      {"wrong-shape",
       kQ,
       [](Model& m) {
         m.set(kQ, "F8_E4M3", {95, 32});
       },
       {}},
      {"layer-beyond-config",
       "model.layers.9",
       [](Model& m) { m.set("model.layers.9.input_layernorm.weight", "BF16", {64}); },
       {}},
      {"expert-beyond-config",
       "experts.8",
       [](Model& m) {
         m.set("model.layers.1.mlp.experts.8.up_proj.weight", "F8_E4M3", {32, 64});
       },
       {}},
      {"mtp-absent",
       "num_nextn_predict_layers",
       [](Model& m) {
         std::erase_if(m.tensors,
                       [](const auto& item) { return item.first.starts_with("model.layers.3."); });
       },
       {}},
      {"mtp-undeclared", "num_nextn_predict_layers", config("num_nextn_predict_layers", 0), {}},
      {"mtp-incomplete",
       "shared_head.norm",
       [](Model& m) { m.tensors.erase("model.layers.3.shared_head.norm.weight"); },
       {}},
      {"fused-experts",
       "gate_up_proj",
       [](Model& m) {
         std::erase_if(m.tensors, [](const auto& item) {
           return item.first.starts_with("model.layers.1.mlp.experts.");
         });
         m.set("model.layers.1.mlp.experts.gate_up_proj", "BF16", {8, 64, 64});
         m.set("model.layers.1.mlp.experts.down_proj", "BF16", {8, 64, 32});
       },
       {}},
      {"wrong-prefix",
       "language_model",
       [](Model& m) {
         std::map<std::string, ModelTensor> renamed;
         for (const auto& [name, tensor] : m.tensors) renamed["language_model." + name] = tensor;
         m.tensors = renamed;
       },
       {}},
      {"ignorable-buffer",
       "inv_freq",
       [](Model& m) { m.set("model.layers.1.self_attn.rotary_emb.inv_freq", "F32", {4}); },
       {}},
      {"router-bias-dtype",
       "e_score_correction_bias",
       [](Model& m) { m.set("model.layers.1.mlp.gate.e_score_correction_bias", "BF16", {8}); },
       {}},
      {"unsupported-dtype",
       "model.norm.weight",
       [](Model& m) { m.set("model.norm.weight", "I32", {64}); },
       {}},
      {"dtype-key", "torch_dtype", config("torch_dtype", "float16"), {}},
      {"tied-head", "tie_word_embeddings", config("tie_word_embeddings", true), {}},
      {"adapter-in-checkpoint",
       "lora_A",
       [](Model& m) {
         m.set("model.layers.1.self_attn.o_proj.lora_A.weight", "F32", {4, 64});
       },
       {}},
      {"config-dimension", "vocab_size", config("vocab_size", 301), {}},
      {"config-dimension", "hidden_size", config("hidden_size", 65), {}},
      {"config-dimension", "q_lora_rank", config("q_lora_rank", 33), {}},
      {"config-dimension", "q_lora_rank", config("q_lora_rank", nullptr), {}},
      {"config-dimension", "kv_lora_rank", config("kv_lora_rank", 17), {}},
      {"config-dimension", "qk_rope_head_dim", config("qk_rope_head_dim", 10), {}},
      {"config-dimension", "qk_nope_head_dim", config("qk_nope_head_dim", 20), {}},
      {"config-dimension", "v_head_dim", config("v_head_dim", 8), {}},
      {"config-dimension", "intermediate_size", config("intermediate_size", 96), {}},
      {"config-dimension", "moe_intermediate_size", config("moe_intermediate_size", 16), {}},
      {"config-dimension", "n_routed_experts", config("n_routed_experts", 6), {}},
      {"config-dimension", "n_shared_experts", config("n_shared_experts", 2), {}},
      {"config-dimension", "first_k_dense_replace", config("first_k_dense_replace", 2), {}},
      {"config-dimension", "num_hidden_layers", config("num_hidden_layers", 2), {}},
      {"config-dimension",
       "num_attention_heads",
       [](Model& m) {
         m.config["num_attention_heads"] = 2;
         m.config["num_key_value_heads"] = 2;
       },
       {}},
      {"differs-from-published", "routed_scaling_factor", published_v3, {}},
      {"rope-factor", "factor", config("max_position_embeddings", 1000), {}},
      {"rope-twice",
       "rope_theta",
       [](Model& m) { m.config["rope_scaling"]["rope_theta"] = 50000; },
       {}},
      {"rope-twice",
       "beta_fast",
       [](Model& m) {
         m.config["rope_parameters"] = m.config["rope_scaling"];
         m.config["rope_parameters"]["beta_fast"] = 1;
       },
       {}},
      {"token-beyond-vocabulary", "eos_token_id", config("eos_token_id", 300), {}},
      {"token-beyond-vocabulary", "pad_token_id", config("pad_token_id", 128801), {}},
      {"misspelt-key",
       "rope_thetha",
       [](Model& m) {
         m.config["rope_thetha"] = m.config["rope_theta"];
         m.config.erase("rope_theta");
       },
       {}},
      {"default-used",
       "routed_scaling_factor",
       [](Model& m) { m.config.erase("routed_scaling_factor"); },
       {}},
      {"default-used", "torch_dtype", [](Model& m) { m.config.erase("torch_dtype"); }, {}},
  };
  return kCases;
}

std::function<void(Model&)> quantization(const char* key, const json& value) {
  return [=](Model& m) { m.config["quantization_config"][key] = value; };
}

const std::vector<Case>& quantisation_cases() {
  static const std::vector<Case> kCases{
      {"fp8-without-scale", kQ, [](Model& m) { m.tensors.erase(kQScale); }, {}},
      {"scale-without-weight", kQScale, [](Model& m) { m.tensors.erase(kQ); }, {}},
      {"scale-of-unquantised",
       kQScale,
       [](Model& m) {
         m.set(kQ, "BF16", {96, 32});
       },
       {}},
      {"scale-shape",
       kQScale,
       [](Model& m) {
         m.set(kQScale, "F32", {1, 2});
       },
       {}},
      {"scale-dtype",
       kQScale,
       [](Model& m) {
         m.set(kQScale, "F64", {1, 1});
       },
       {}},
      {"narrow-scale",
       kQScale,
       [](Model& m) {
         m.set(kQScale, "BF16", {1, 1});
       },
       {}},
      {"must-not-be-fp8",
       "mlp.gate.weight",
       [](Model& m) {
         m.set("model.layers.1.mlp.gate.weight", "F8_E4M3", {8, 64});
       },
       {}},
      {"must-not-be-fp8",
       "eh_proj",
       [](Model& m) {
         m.set("model.layers.3.eh_proj.weight", "F8_E4M3", {64, 128});
       },
       {}},
      {"fp8-undeclared",
       "quantization_config",
       [](Model& m) { m.config.erase("quantization_config"); },
       {}},
      {"partly-quantised",
       kExpert,
       [](Model& m) {
         m.set(kExpert, "BF16", {32, 64});
         m.tensors.erase(std::string(kExpert) + "_scale_inv");
       },
       {}},
      {"block-size", "weight_block_size", quantization("weight_block_size", {64, 128}), {}},
      {"quantisation-method", "quant_method", quantization("quant_method", "awq"), {}},
      {"fp8-format", "fmt", quantization("fmt", "e5m2"), {}},
      {"fp8-format",
       kQ,
       [](Model& m) {
         m.set(kQ, "F8_E5M2", {96, 32});
       },
       {}},
      {"scale-format", "scale_fmt", quantization("scale_fmt", "e8m0"), {}},
      {"ue8m0-undeclared",
       kQScale,
       [](Model& m) {
         m.set(kQScale, "F8_E8M0", {1, 1});
       },
       {}},
      {"activation-scheme", "activation_scheme", quantization("activation_scheme", "static"), {}},
      {"foreign-quantisation",
       "qweight",
       [](Model& m) {
         m.set("model.layers.1.self_attn.o_proj.qweight", "I32", {8, 64});
       },
       {}},
      {"unmatched-exclusion",
       "modules_to_not_convert",
       quantization("modules_to_not_convert", {"vision_tower"}),
       {}},
      {"excluded-is-fp8",
       kQ,
       quantization("modules_to_not_convert", {"model.layers.1.self_attn.q_b_proj"}),
       {}},
      {"unquantised-pair",
       "experts.3.gate_proj",
       [](Model& m) {
         m.set(kExpert, "BF16", {32, 64});
         m.tensors.erase(std::string(kExpert) + "_scale_inv");
       },
       {}},
  };
  return kCases;
}

// Overwrites elements of a tensor's data.
std::function<void(Model&)> poke(const char* name, std::size_t at, const std::string& bytes) {
  return [=](Model& m) { m.at(name).data.replace(at, bytes.size(), bytes); };
}
std::string f32(float value) { return std::string(reinterpret_cast<const char*>(&value), 4); }

// Found only with the data read.
const std::vector<Case>& deep_cases() {
  static const std::vector<Case> kCases{
      {"fp8-nan", kQ, poke(kQ, 77, "\x7f"), {}},
      {"fp8-nan", kQ, poke(kQ, 78, "\xff"), {}},
      {"scale-not-finite", kQScale, poke(kQScale, 0, f32(HUGE_VALF)), {}},
      {"scale-not-finite", kQScale, poke(kQScale, 0, f32(NAN)), {}},
      {"scale-not-positive", kQScale, poke(kQScale, 0, f32(0.0f)), {}},
      {"scale-not-positive", kQScale, poke(kQScale, 0, f32(-0.01f)), {}},
      {"scale-range", kQScale, poke(kQScale, 0, f32(1e6f)), {}},
      {"ue8m0-mantissa", kQScale, quantization("scale_fmt", "ue8m0"), {}},
      {"ue8m0-possible",
       "scale_fmt",
       [](Model& m) {
         for (auto& [name, tensor] : m.tensors) {
           if (!name.ends_with("_scale_inv")) continue;
           for (std::size_t i = 0; i < tensor.data.size(); i += 4) {
             tensor.data.replace(i, 4, f32(0.000244140625f));
           }
         }
       },
       {}},
      {"saturated", kQ, poke(kQ, 0, std::string(400, '\x7e')), {}},
      {"weight-not-finite",
       "model.norm.weight",
       poke("model.norm.weight", 10, std::string("\x80\x7f", 2)),
       {}},
      {"weight-not-finite",
       "e_score_correction_bias",
       poke("model.layers.1.mlp.gate.e_score_correction_bias", 4, f32(NAN)),
       {}},
      {"constant-tensor", kQ, poke(kQ, 0, std::string(96 * 32, '\x31')), {}},
      {"zero-tensor", kQ, poke(kQ, 0, std::string(96 * 32, '\0')), {}},
      {"identical-tensors",
       "experts.4.up_proj",
       [](Model& m) {
         m.at("model.layers.1.mlp.experts.4.up_proj.weight").data = m.at(kExpert).data;
       },
       {}},
      {"unlike-siblings",
       kExpert,
       poke("model.layers.1.mlp.experts.3.up_proj.weight_scale_inv", 0, f32(1.0f)),
       {}},
      {"codes-below-scale",
       kQ,
       [](Model& m) {
         for (char& code : m.at(kQ).data) code = static_cast<char>(code & 0xbf);
       },
       {}},
  };
  return kCases;
}

// Models that need another base than the FP8 one.
const std::vector<Case>& plain_cases() {
  static const std::vector<Case> kCases{
      {"fp8-declared-only",
       "quantization_config",
       config("quantization_config", {{"activation_scheme", "dynamic"},
                                      {"fmt", "e4m3"},
                                      {"quant_method", "fp8"},
                                      {"weight_block_size", {128, 128}}}),
       {}},
      {"mixed-dtypes",
       kQ,
       [](Model& m) {
         m.set(kQ, "F16", {96, 32});
       },
       {}},
  };
  return kCases;
}
const std::vector<Case>& softmax_cases() {
  static const std::vector<Case> kCases{
      {"bias-without-sigmoid",
       "e_score_correction_bias",
       [](Model& m) { m.set("model.layers.1.mlp.gate.e_score_correction_bias", "F32", {8}); },
       {}},
  };
  return kCases;
}

struct Base {
  const char* name;
  Model model;
  const std::vector<Case>* cases;
  bool deep = false;
};

std::vector<Base> bases() {
  return {{"fp8", sound_model(), &container_cases()},
          {"fp8", sound_model(), &architecture_cases()},
          {"fp8", sound_model(), &quantisation_cases()},
          {"fp8", sound_model(), &deep_cases(), true},
          {"bf16", sound_model({.mtp = true}, false), &plain_cases()},
          {"v2", sound_model({.v2 = true, .q_lora = false}, false), &softmax_cases()}};
}

}  // namespace

TEST_CASE("sound models have no findings at all") {
  for (const TinyModel& tiny :
       {TinyModel{}, TinyModel{.v2 = true}, TinyModel{.v2 = true, .q_lora = false},
        TinyModel{.attention_bias = true}, TinyModel{.tied = true}, TinyModel{.mtp = true},
        TinyModel{.shared_experts = 2, .groups = 1}}) {
    for (const bool fp8 : {false, true}) {
      TempFolder folder("check");
      sound_model(tiny, fp8).write(folder.root());
      const auto findings = check_folder(folder.root(), true);
      CHECK_MESSAGE(findings.empty(), describe(findings));
    }
  }
}

TEST_CASE("each rule finds its spoilt models, in the right place") {
  for (const Base& base : bases()) {
    for (const Case& spoilt : *base.cases) {
      INFO(spoilt.rule);
      TempFolder folder("check");
      Model model = base.model;
      if (spoilt.model) spoilt.model(model);
      model.write(folder.root());
      if (spoilt.files) spoilt.files(folder.root());
      const auto findings = check_folder(folder.root(), base.deep);
      bool placed = false;
      bool found = false;
      for (const Finding& finding : findings) {
        if (finding.rule->name != spoilt.rule) continue;
        found = true;
        const std::string at = finding.file + " " + finding.tensor + " " + finding.key;
        placed = placed || at.find(spoilt.place) != std::string::npos;
        CHECK(!finding.message.empty());
        CHECK(!finding.fix.empty());
      }
      CHECK_MESSAGE(found, describe(findings));
      if (found) CHECK_MESSAGE(placed, describe(findings));
    }
  }
}

TEST_CASE("every rule on checkpoints has a case") {
  std::set<std::string> covered;
  for (const auto* cases : {&container_cases(), &architecture_cases(), &quantisation_cases(),
                            &deep_cases(), &plain_cases(), &softmax_cases()}) {
    for (const Case& spoilt : *cases) covered.insert(spoilt.rule);
  }
  for (const check::Rule& rule : check::rules()) {
    if (of_other_form(rule)) continue;
    if (rule.group != RuleGroup::kContainer && rule.group != RuleGroup::kArchitecture &&
        rule.group != RuleGroup::kQuantisation) {
      continue;
    }
    CHECK_MESSAGE(covered.count(std::string(rule.name)) == 1, rule.name);
  }
}

TEST_CASE("one mistake in a large model is one finding, not thousands") {
  TempFolder folder("check");
  Model model = sound_model();
  for (auto& [name, tensor] : model.tensors) {
    if (name.ends_with("experts.0.up_proj.weight_scale_inv") ||
        name.find("mlp.experts") != std::string::npos) {
      if (name.ends_with("_scale_inv")) model.set(name, "BF16", tensor.shape);
    }
  }
  model.write(folder.root());
  const auto findings = check_folder(folder.root());
  CHECK(findings.size() == 1);
  CHECK_MESSAGE(find(findings, "narrow-scale") != nullptr, describe(findings));
  CHECK(findings.front().message.find("more alike") != std::string::npos);
}
