// Where GGUF models, GGUF adapters and inference shards can go.
#include <doctest/doctest.h>

#include <functional>

#include "libcore/check/compatibility.h"
#include "libcore/check/inference_target.h"
#include "libcore/check/machine.h"
#include "tests/core/check/gguf_model.h"
#include "tests/core/check/shards_fixture.h"
#include "tests/core/check/tokenizer_fixture.h"

namespace {

using namespace ds;
using namespace ds::test;
using check::CompatibilityRow;
using check::CompatibilityRows;
using check::Generation;
using check::HardwareFit;
using check::InputFacts;
using check::Stack;
using check::TargetKind;
using check::Verdict;
using check::Workload;
namespace fs = std::filesystem;
using nlohmann::json;

using SpoilGguf = std::function<void(GgufSpec&)>;
using SpoilShards = std::function<void(std::vector<Model>&)>;

InputFacts gguf(const SpoilGguf& spoil = {}, GgufMla mla = GgufMla::kSplit, TinyModel tiny = {}) {
  const TempFolder folder("forms");
  GgufSpec spec = sound_gguf(mla, tiny);
  if (spoil) spoil(spec);
  spec.write(folder.root() / "m.gguf");
  return check::examine({TargetKind::kGguf, folder.root() / "m.gguf"}, nullptr);
}

// `model`: what lies beside it, may be null.
InputFacts gguf_adapter(const InputFacts* model, const SpoilGguf& spoil = {},
                        GgufMla mla = GgufMla::kSplit) {
  const TempFolder folder("forms");
  const ModelConfig base = gguf_config();
  GgufSpec spec = sound_gguf_adapter(base, mla);
  if (spoil) spoil(spec);
  spec.write(folder.root() / "a.gguf");
  return check::examine({TargetKind::kGgufAdapter, folder.root() / "a.gguf"},
                        model != nullptr ? &base : nullptr, model);
}

InputFacts shards(std::int64_t ranks, bool fp8 = false, const SpoilShards& spoil = {},
                  const std::function<void(const fs::path&)>& files = {}) {
  const TempFolder folder("forms");
  std::vector<Model> parts = sound_shards(ranks, fp8);
  for (Model& part : parts) {
    // As many tokens as the tokenizer has.
    part.config["vocab_size"] = 4096;
    part.config["bos_token_id"] = 0;
    part.config["eos_token_id"] = 1;
    for (const char* name : {"embed.weight", "head.weight"}) {
      part.set(name, "BF16", {4096 / ranks, 64}, part.at(name).shard);
    }
  }
  if (spoil) spoil(parts);
  write_shards(folder.root(), parts);
  TokenizerFiles tokenizer = nano_tokenizer();
  tokenizer.config = nullptr;
  tokenizer.generation = nullptr;
  tokenizer.write(folder.root());
  if (files) files(folder.root());
  return check::examine({TargetKind::kInference, folder.root()}, nullptr);
}
// config.json in the demo's own keys.
SpoilShards demo_config(const char* dtype) {
  return [=](std::vector<Model>& parts) {
    const ModelConfig config = parse_model_config(parts.front().config, "config.json");
    json demo = check::to_demo_config(config, false, false);
    demo["dtype"] = dtype;
    for (Model& part : parts) part.config = demo;
  };
}
// Every value that the shards' FP8 scales have.
void scales_of(std::vector<Model>& parts, float scale) {
  for (Model& part : parts) {
    for (auto& [name, tensor] : part.tensors) {
      if (!name.ends_with(".scale")) continue;
      for (std::size_t at = 0; at < tensor.data.size(); at += sizeof scale) {
        std::memcpy(tensor.data.data() + at, &scale, sizeof scale);
      }
    }
  }
}

const CompatibilityRow& row(const CompatibilityRows& rows, std::string_view requirement) {
  for (const CompatibilityRow& one : rows) {
    if (one.requirement == requirement) return one;
  }
  FAIL(std::string(requirement));
  return rows.front();
}
bool has(const CompatibilityRows& rows, std::string_view requirement) {
  return std::any_of(rows.begin(), rows.end(),
                     [&](const CompatibilityRow& one) { return one.requirement == requirement; });
}
bool says(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
bool refused(const CompatibilityRows& rows, std::string_view rule) {
  return std::any_of(rows.begin(), rows.end(), [&](const CompatibilityRow& one) {
    return one.verdict == Verdict::kRefuses && one.rule == rule;
  });
}
// Nothing is refused; what is needed has its action, and every row its source.
void expect_taken(const CompatibilityRows& rows) {
  CHECK(rows.size() > 3);
  for (const CompatibilityRow& one : rows) {
    CHECK_MESSAGE(one.verdict != Verdict::kRefuses, (one.requirement + ": " + one.detail));
    CHECK_MESSAGE(one.action.empty() == (one.verdict == Verdict::kOk), one.requirement);
    CHECK(!one.source.empty());
  }
}
// The layout is refused, with this command, and nothing else is said.
void expect_command(const InputFacts& input, Stack stack, const std::string& command) {
  const CompatibilityRows rows = check_stack(input, stack);
  INFO(stack_name(stack));
  REQUIRE(rows.size() == 1);
  CHECK(refused(rows, "target-layout"));
  CHECK_MESSAGE(rows[0].action == command, rows[0].action);
}

const std::string kHf = "deepseek-convert weights IN OUT --to hf";
const std::string kThrough = "deepseek-convert weights IN HF --to hf, then ";

}  // namespace

TEST_CASE("a GGUF model: llama.cpp takes it, what reads Hugging Face folders does not") {
  const InputFacts split = gguf();
  const InputFacts unsplit = gguf({}, GgufMla::kUnsplit);
  expect_taken(check_stack(split, Stack::kLlamaCpp));
  expect_taken(check_stack(unsplit, Stack::kLlamaCpp));
  expect_taken(check_stack(gguf({}, GgufMla::kSplit, {.v2 = true}), Stack::kLlamaCpp));
  for (const Stack stack : {Stack::kTransformers, Stack::kPeft, Stack::kSglang}) {
    expect_command(split, stack, kHf);
  }
  expect_command(split, Stack::kInference,
                 kThrough + "deepseek-convert weights HF OUT --to inference --mp N");
  // vLLM knows kv_b in one piece, and then needs what it does not read out of the file.
  expect_command(split, Stack::kVllm, kHf);
  const CompatibilityRows vllm = check_stack(unsplit, Stack::kVllm);
  CHECK(row(vllm, "layout").verdict == Verdict::kNeeds);
  CHECK(says(row(vllm, "layout").action, "--hf-config-path"));
}

TEST_CASE("a GGUF model on llama.cpp: types, MLA, parts, tokenizer, template") {
  const auto rows = [](const SpoilGguf& spoil) {
    return check_stack(gguf(spoil), Stack::kLlamaCpp);
  };
  const CompatibilityRows sound = rows({});
  CHECK(row(sound, "GGUF type").detail == "F32 100 %");
  CHECK(says(row(sound, "layout").detail, "one GGUF file"));
  CHECK(row(sound, "MLA").verdict == Verdict::kOk);
  CHECK(says(row(sound, "tokenizer").detail, "deepseek-v3"));

  const InputFacts unsplit = gguf({}, GgufMla::kUnsplit);
  const CompatibilityRow mla = row(check_stack(unsplit, Stack::kLlamaCpp), "MLA");
  CHECK(mla.verdict == Verdict::kNeeds);
  CHECK(says(mla.action, "--to gguf --mla split"));
  const ModelConfig& config = *unsplit.config;
  CHECK(says(mla.detail, std::to_string(config.num_attention_heads *
                                        (config.q_head_dim() + config.v_head_dim))));
  CHECK(says(mla.detail, std::to_string(config.kv_lora_rank + config.qk_rope_head_dim)));

  // A type that nothing here reads: there is no way to the other stacks.
  const InputFacts one_way =
      gguf([](GgufSpec& spec) { spec.tensor("blk.1.ffn_down_exps.weight").type = GgmlType::kI8; });
  CHECK(one_way.gguf.one_way == "I8");
  CHECK(says(check_stack(one_way, Stack::kVllm)[0].action, "does not read I8"));
  CHECK(!says(check_stack(one_way, Stack::kVllm)[0].action, "--to hf"));

  CHECK(refused(rows([](GgufSpec& s) { s.drop_tensor("blk.1.ffn_norm.weight"); }), "target-files"));
  CHECK(refused(rows([](GgufSpec& s) { s.key("deepseek2.attention.key_length") = 7; }),
                "target-config"));
  CHECK(refused(rows([](GgufSpec& s) { s.key("general.architecture") = std::string("llama"); }),
                "target-config"));
  CHECK(refused(rows([](GgufSpec& s) { s.drop_key("tokenizer.ggml.model"); }), "target-tokenizer"));
  CHECK(refused(rows([](GgufSpec& s) {
                  s.key("tokenizer.chat_template") = std::string("{% for x in y %}{{ x");
                }),
                "target-template"));
  const CompatibilityRow norm = row(
      rows([](GgufSpec& s) { s.tensor("output_norm.weight").type = GgmlType::kF16; }), "GGUF type");
  CHECK(norm.verdict == Verdict::kNeeds);
  CHECK(says(norm.detail, "DS430"));
  for (const char* pre : {"gpt-2", ""}) {
    const CompatibilityRow tokenizer = row(rows([&](GgufSpec& s) {
                                             s.drop_key("tokenizer.ggml.pre");
                                             if (*pre != '\0') {
                                               s.key("tokenizer.ggml.pre") = std::string(pre);
                                             }
                                           }),
                                           "tokenizer");
    CHECK(tokenizer.verdict == Verdict::kNeeds);
    CHECK(says(tokenizer.action, "--override-kv tokenizer.ggml.pre=str:deepseek-v3"));
  }
  CHECK(row(rows([](GgufSpec& s) { s.drop_key("tokenizer.chat_template"); }), "chat template")
            .verdict == Verdict::kNeeds);
  // A file that cannot be read at all ends with what is wrong with it.
  const TempFolder folder("forms");
  write_text(folder.root() / "m.gguf", "GGUF");
  const InputFacts broken = check::examine({TargetKind::kGguf, folder.root() / "m.gguf"}, nullptr);
  CHECK(refused(check_stack(broken, Stack::kLlamaCpp), "target-files"));
  CHECK(check_stack(broken, Stack::kTransformers).size() == 1);
}

TEST_CASE("a GGUF model in parts: any of them, and one that is missing") {
  const TempFolder folder("forms");
  sound_gguf().write_split(folder.root(), "m");
  for (const char* name : {"", "m-00001-of-00002.gguf", "m-00002-of-00002.gguf"}) {
    const CompatibilityRows rows = check_stack(
        check::examine({TargetKind::kGguf, folder.root() / name}, nullptr), Stack::kLlamaCpp);
    expect_taken(rows);
    CHECK(says(row(rows, "layout").detail, "00001-of-00002"));
  }
  fs::remove(folder.root() / "m-00002-of-00002.gguf");
  CHECK(refused(
      check_stack(check::examine({TargetKind::kGguf, folder.root()}, nullptr), Stack::kLlamaCpp),
      "target-files"));
}

TEST_CASE("a GGUF adapter goes to llama.cpp, beside the GGUF model it fits") {
  const InputFacts split = gguf();
  const InputFacts unsplit = gguf({}, GgufMla::kUnsplit);
  const CompatibilityRows rows = check_stack(gguf_adapter(&split), Stack::kLlamaCpp);
  expect_taken(rows);
  CHECK(row(rows, "base").verdict == Verdict::kOk);
  // What the graph leaves out is a warning, not an error: a build may have it.
  const CompatibilityRow modules = row(rows, "modules");
  CHECK(modules.verdict == Verdict::kNeeds);
  CHECK(modules.rule == "target-adapter-graph");
  CHECK(check::rule_named(modules.rule).severity == check::Severity::kWarning);
  const auto keep = [](const char* part) {
    return [=](GgufSpec& spec) {
      std::erase_if(spec.tensors, [&](const auto& tensor) { return !says(tensor.name, part); });
      REQUIRE(!spec.tensors.empty());
    };
  };
  for (const char* part : {"attn_q_a.", "attn_q_b.", "attn_kv_a_mqa.", "attn_k_b.", "attn_v_b."}) {
    INFO(std::string(part));
    const CompatibilityRows lost = check_stack(gguf_adapter(&split, keep(part)), Stack::kLlamaCpp);
    CHECK(row(lost, "modules").verdict == Verdict::kNeeds);
  }
  for (const char* part : {"attn_output.", "ffn_", "token_embd."}) {
    INFO(std::string(part));
    const CompatibilityRows asked = check_stack(gguf_adapter(&split, keep(part)), Stack::kLlamaCpp);
    CHECK(row(asked, "modules").verdict == Verdict::kOk);
  }

  // Another layout of kv_b has no tensor of that name, both ways.
  CHECK(refused(check_stack(gguf_adapter(&unsplit), Stack::kLlamaCpp), "target-adapter-keys"));
  CHECK(refused(check_stack(gguf_adapter(&split, {}, GgufMla::kUnsplit), Stack::kLlamaCpp),
                "target-adapter-keys"));
  expect_taken(check_stack(gguf_adapter(&unsplit, {}, GgufMla::kUnsplit), Stack::kLlamaCpp));
  expect_taken(check_stack(gguf_adapter(&unsplit, keep("attn_output.")), Stack::kLlamaCpp));

  CHECK(says(row(check_stack(gguf_adapter(nullptr), Stack::kLlamaCpp), "base").action, "--model"));
  const InputFacts folder = shards(1);
  CHECK(says(row(check_stack(gguf_adapter(&folder), Stack::kLlamaCpp), "base").action,
             "--to gguf --mla split"));
  CHECK(refused(
      check_stack(gguf_adapter(&split, [](GgufSpec& s) { s.drop_key("adapter.lora.alpha"); }),
                  Stack::kLlamaCpp),
      "target-adapter-keys"));
  for (const Stack stack : {Stack::kTransformers, Stack::kPeft, Stack::kVllm, Stack::kSglang}) {
    const CompatibilityRows other = check_stack(gguf_adapter(&split), stack);
    CHECK(refused(other, "target-layout"));
  }
  CHECK(says(check_stack(gguf_adapter(&split), Stack::kInference)[0].action,
             "deepseek-convert merge"));
}

TEST_CASE("inference shards: the demo takes them, the others do not") {
  for (const std::int64_t ranks : {1, 2, 4}) {
    const CompatibilityRows rows = check_stack(shards(ranks), Stack::kInference);
    expect_taken(rows);
    const CompatibilityRow& count = row(rows, "ranks");
    CHECK((count.verdict == Verdict::kOk) == (ranks == 1));
    if (ranks == 1) continue;
    CHECK(says(count.detail, std::to_string(ranks) + " of them"));
    CHECK(says(count.action, kThrough + "deepseek-convert weights HF OUT --to inference --mp N"));
  }
  expect_taken(check_stack(shards(1, true), Stack::kInference));
  const InputFacts two = shards(2);
  for (const Stack stack : {Stack::kTransformers, Stack::kPeft, Stack::kVllm, Stack::kSglang}) {
    expect_command(two, stack, kHf);
  }
  expect_command(
      two, Stack::kLlamaCpp,
      kThrough + "deepseek-convert weights HF OUT.gguf --to gguf --gguf_type bf16|f16|f32|q8_0");
}

TEST_CASE("inference shards: FP8 needs its device, and what is spoilt is refused") {
  const InputFacts fp8 = shards(1, true);
  CHECK(row(check_stack(fp8, Stack::kInference), "dtype").verdict == Verdict::kNeeds);
  CHECK(says(row(check_stack(fp8, Stack::kInference), "dtype").action, "--to bf16"));
  CHECK(row(check_stack(fp8, Stack::kInference, true), "dtype").verdict == Verdict::kOk);
  const auto demo = [](std::int64_t ranks, bool fp8_weights, const SpoilShards& spoil,
                       const std::function<void(const fs::path&)>& files = {}) {
    return check_stack(shards(ranks, fp8_weights, spoil, files), Stack::kInference);
  };
  CHECK(refused(demo(2, false, {},
                     [](const fs::path& folder) { fs::remove(folder / "model1-mp2.safetensors"); }),
                "target-files"));
  CHECK(refused(
      demo(2, false,
           [](std::vector<Model>& parts) { parts[0].tensors.erase("layers.1.attn_norm.weight"); }),
      "target-files"));
  CHECK(refused(demo(2, false,
                     [](std::vector<Model>& parts) {
                       for (Model& part : parts) part.config["vocab_size"] = 301;
                     }),
                "target-shape"));
  CHECK(refused(
      demo(1, true,
           [](std::vector<Model>& parts) { parts[0].tensors.erase("layers.1.attn.wo.scale"); }),
      "target-dtype"));
  // 64 columns in two: half a block, whose scale both ranks have.
  CHECK(refused(demo(2, true,
                     [](std::vector<Model>& parts) {
                       for (Model& part : parts) {
                         for (auto& [name, tensor] : part.tensors) {
                           if (name.ends_with(".scale"))
                             part.set(name, "F32", {1, 1}, tensor.shard);
                         }
                       }
                     }),
                "target-scales"));
  CHECK(refused(demo(1, false,
                     [](std::vector<Model>& parts) {
                       parts[0].config["architectures"] = {"Qwen2ForCausalLM"};
                       parts[0].config["model_type"] = "qwen2";
                     }),
                "target-config"));
  CHECK(refused(
      demo(1, false, {}, [](const fs::path& folder) { write_text(folder / "config.json", "{"); }),
      "target-config"));
}

TEST_CASE("the demo's config: what it must hold is said, and read back is the same model") {
  const InputFacts facts = shards(1);
  const CompatibilityRow keys = row(check_stack(facts, Stack::kInference), "config keys");
  CHECK(keys.verdict == Verdict::kNeeds);
  const std::size_t begin = keys.action.find('{');
  REQUIRE(begin != std::string::npos);
  const json demo = json::parse(keys.action.substr(begin));
  // ModelArgs takes these and no others (DeepSeek-V3, inference/model.py).
  const std::set<std::string> fields{"max_batch_size",
                                     "max_seq_len",
                                     "dtype",
                                     "scale_fmt",
                                     "vocab_size",
                                     "dim",
                                     "inter_dim",
                                     "moe_inter_dim",
                                     "n_layers",
                                     "n_dense_layers",
                                     "n_heads",
                                     "n_routed_experts",
                                     "n_shared_experts",
                                     "n_activated_experts",
                                     "n_expert_groups",
                                     "n_limited_groups",
                                     "score_func",
                                     "route_scale",
                                     "q_lora_rank",
                                     "kv_lora_rank",
                                     "qk_nope_head_dim",
                                     "qk_rope_head_dim",
                                     "v_head_dim",
                                     "original_seq_len",
                                     "rope_theta",
                                     "rope_factor",
                                     "beta_fast",
                                     "beta_slow",
                                     "mscale"};
  for (const auto& [key, value] : demo.items()) CHECK_MESSAGE(fields.count(key) == 1, key);
  const ModelConfig& config = *facts.config;
  const ModelConfig back = parse_model_config(check::from_demo_config(demo), "config.json");
  CHECK(back.vocab_size == config.vocab_size);
  CHECK(back.hidden_size == config.hidden_size);
  CHECK(back.intermediate_size == config.intermediate_size);
  CHECK(back.moe_intermediate_size == config.moe_intermediate_size);
  CHECK(back.num_hidden_layers == config.num_hidden_layers);
  CHECK(back.first_k_dense_replace == config.first_k_dense_replace);
  CHECK(back.num_attention_heads == config.num_attention_heads);
  CHECK(back.n_routed_experts == config.n_routed_experts);
  CHECK(back.n_shared_experts == config.n_shared_experts);
  CHECK(back.num_experts_per_tok == config.num_experts_per_tok);
  CHECK(back.n_group == config.n_group);
  CHECK(back.topk_group == config.topk_group);
  CHECK(back.scoring == config.scoring);
  CHECK(back.method == config.method);
  CHECK(back.routed_scaling_factor == config.routed_scaling_factor);
  CHECK(back.q_lora_rank == config.q_lora_rank);
  CHECK(back.kv_lora_rank == config.kv_lora_rank);
  CHECK(back.qk_nope_head_dim == config.qk_nope_head_dim);
  CHECK(back.qk_rope_head_dim == config.qk_rope_head_dim);
  CHECK(back.v_head_dim == config.v_head_dim);
  CHECK(back.rope_theta == config.rope_theta);
  // The demo takes YaRN for a length above the original one.
  REQUIRE(config.yarn);
  CHECK(demo["max_seq_len"] > demo["original_seq_len"]);
  CHECK(demo["rope_factor"] == config.yarn->factor);
  ModelConfig plain = config;
  plain.yarn.reset();
  const json without = check::to_demo_config(plain, true, true);
  CHECK(without["max_seq_len"] == without["original_seq_len"]);
  CHECK(!without.contains("rope_factor"));
  CHECK(without["dtype"] == "fp8");
  CHECK(without["scale_fmt"] == "ue8m0");

  const auto keys_of = [](bool fp8, const char* dtype) {
    return row(check_stack(shards(1, fp8, demo_config(dtype)), Stack::kInference), "config keys");
  };
  CHECK(keys_of(false, "bf16").verdict == Verdict::kOk);
  CHECK(keys_of(true, "fp8").verdict == Verdict::kOk);
  CHECK(keys_of(true, "bf16").verdict == Verdict::kNeeds);
  CHECK(keys_of(false, "fp8").verdict == Verdict::kNeeds);
  const CompatibilityRows none =
      check_stack(shards(1, false, {}, [](const fs::path& f) { fs::remove(f / "config.json"); }),
                  Stack::kInference);
  CHECK(row(none, "config keys").verdict == Verdict::kNeeds);
  CHECK(!has(none, "router bias"));
}

TEST_CASE("migration to V3.1: templates in GGUF files, scales in shards") {
  const auto v31 = [](const InputFacts& input) { return check_migration(input, Generation::kV3); };
  CHECK(row(v31(gguf()), "chat template").verdict == Verdict::kOk);
  CHECK(row(v31(gguf()), "scale format").verdict == Verdict::kOk);
  const CompatibilityRows v3 = v31(gguf([](GgufSpec& spec) {
    spec.key("tokenizer.chat_template") = std::string(
        "{{ bos_token }}{% for m in messages %}{% if m.role == 'user' %}{{ '<｜User｜>' + "
        "m.content "
        "}}{% else %}{{ '<｜Assistant｜>' + m.content }}{% endif %}{% endfor %}");
  }));
  const CompatibilityRow& text = row(v3, "chat template");
  CHECK(text.rule == "migration-template");
  CHECK(text.key == "tokenizer.chat_template");
  CHECK(says(text.file, "m.gguf"));
  CHECK(!says(text.file, "m.gguf/"));
  CHECK(says(text.action, "--chat-template-file"));
  CHECK(says(text.action, "--to gguf"));
  const CompatibilityRows no_think = v31(gguf([](GgufSpec& spec) {
    for (std::string& token :
         std::get<std::vector<std::string>>(spec.key("tokenizer.ggml.tokens"))) {
      if (token == "<think>") token = "other";
    }
  }));
  CHECK(row(no_think, "think tokens").rule == "migration-think-tokens");
  CHECK(row(v31(gguf({}, GgufMla::kSplit, {.v2 = true})), "config keys").verdict ==
        Verdict::kRefuses);

  CHECK(row(v31(shards(1)), "scale format").verdict == Verdict::kOk);
  const SpoilShards mantissa = [](std::vector<Model>& parts) { scales_of(parts, 0.003F); };
  const CompatibilityRow scales = row(v31(shards(1, true, mantissa)), "scale format");
  CHECK(scales.rule == "migration-scale-format");
  CHECK(says(scales.action, kThrough + "deepseek-convert weights HF OUT --to fp8"));
  CHECK(says(scales.action, "--to inference --mp 1"));
  // In the demo's config the setting has no quantization_config around it.
  const CompatibilityRow demo = row(v31(shards(1, true,
                                               [&](std::vector<Model>& parts) {
                                                 demo_config("fp8")(parts);
                                                 parts[0].config["scale_fmt"] = "ue8m0";
                                                 mantissa(parts);
                                               })),
                                    "scale format");
  CHECK(demo.rule == "migration-scale-mantissa");
  const CompatibilityRow powers = row(v31(shards(1, true,
                                                 [](std::vector<Model>& parts) {
                                                   demo_config("fp8")(parts);
                                                   scales_of(parts, 0.25F);
                                                 })),
                                      "scale format");
  CHECK(powers.key == "scale_fmt");

  const InputFacts base = gguf();
  CHECK(has(v31(gguf_adapter(&base)), "base"));
  const auto trained_on = [&](const char* name) {
    return row(v31(gguf_adapter(&base,
                                [&](GgufSpec& spec) {
                                  spec.key("general.base_model.0.name") = std::string(name);
                                })),
               "base");
  };
  CHECK(trained_on("DeepSeek V3.1").verdict == Verdict::kOk);
  CHECK(trained_on("DeepSeek V3").rule == "migration-adapter-base");
}

TEST_CASE("hardware: what a GPU holds of a GGUF model, and of shards") {
  const Hardware one = parse_hardware("H100"), two = parse_hardware("2xH100");
  const Workload workload{.context = 64, .batch = 2};
  InputFacts model = gguf();
  const std::uint64_t cache =
      2ULL * static_cast<std::uint64_t>(check::latent_cache_bytes(*model.config)) * 64;
  HardwareFit fit = check_hardware(model, two, workload);
  CHECK(fit.cache == cache);
  CHECK(fit.needed == (fit.weights + cache + 1) / 2);
  CHECK(fit.smallest_count == 1);
  CHECK(fit.degrees.empty());
  CHECK(!has(fit.rows, "tensor parallel"));
  CHECK(row(fit.rows, "GGUF type").verdict == Verdict::kOk);
  // Unsplit, every head has keys and values.
  const InputFacts unsplit = gguf({}, GgufMla::kUnsplit);
  const ModelConfig& config = *unsplit.config;
  CHECK(check_hardware(unsplit, one, workload).cache ==
        2ULL * 64 * 2 *
            static_cast<std::uint64_t>(config.num_attention_heads *
                                       (config.q_head_dim() + config.v_head_dim) *
                                       config.num_hidden_layers));
  // What does not fit stays in the machine's memory, if it is asked for.
  model.tensors.bytes = 5 * fit.usable;
  fit = check_hardware(model, two, workload);
  CHECK(row(fit.rows, "memory").rule == "hardware-memory");
  CHECK(says(row(fit.rows, "memory").action, "--cpu-moe"));
  CHECK(fit.smallest_count == 6);
  CHECK(row(check_hardware(model, parse_hardware("6xH100"), workload).rows, "memory").verdict ==
        Verdict::kOk);

  InputFacts parts = shards(2);
  CHECK(parts.inference.largest_shard > parts.tensors.bytes / 2);  // copies are in each
  fit = check_hardware(parts, two, workload);
  CHECK(fit.needed == parts.inference.largest_shard + cache);
  CHECK(fit.smallest_count == 2);
  CHECK(row(fit.rows, "ranks").verdict == Verdict::kOk);
  for (const auto& [gpus, mp] : {std::pair("1xH100", 1), {"4xH100", 4}, {"8xH100", 4}}) {
    const CompatibilityRow ranks =
        row(check_hardware(parts, parse_hardware(gpus), workload).rows, "ranks");
    CHECK(ranks.rule == "hardware-ranks");
    CHECK_MESSAGE(says(ranks.action, "--mp " + std::to_string(mp)), ranks.action);
  }
  // Three GPUs: no other number of shards uses more of them.
  const CompatibilityRow three =
      row(check_hardware(parts, parse_hardware("3xH100"), workload).rows, "ranks");
  CHECK(three.action == "2 GPUs");
  parts.tensors.bytes = 3 * fit.usable;
  parts.inference.largest_shard = 2 * fit.usable;
  fit = check_hardware(parts, two, workload);
  CHECK(row(fit.rows, "memory").verdict == Verdict::kRefuses);
  CHECK(says(row(fit.rows, "memory").action, "--mp 4"));
  CHECK(fit.smallest_count == 0);
}

TEST_CASE("this machine: the disk that --to hf needs") {
  check::MachineInfo machine;
  const InputFacts model = gguf();
  const CompatibilityRows rows = machine_work_rows(model, machine, model.tensors.bytes - 1);
  REQUIRE(rows.size() == 1);
  CHECK(rows[0].rule == "machine-disk");
  CHECK(machine_work_rows(shards(2), machine, std::uint64_t{1} << 40).size() == 1);
  InputFacts one_way = model;
  one_way.gguf.one_way = "Q4_K";
  CHECK(machine_work_rows(one_way, machine, 0).empty());
}
