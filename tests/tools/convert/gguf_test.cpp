// deepseek-convert weights --to gguf, and --to hf from a GGUF file.
#include "libcore/io/gguf.h"

#include <algorithm>
#include <cmath>

#include "kernels/types.h"
#include "libcore/base/error.h"
#include "libcore/tensor/q8_0.h"
#include "libcore/text/tokenizer.h"
#include "tests/tools/convert/fixture.h"

namespace ds::test {

namespace {

using kernels::bf16;
using kernels::f16;

struct Shape {
  std::int64_t heads = 0, nope = 0, value = 0, rank = 0, layers = 0;
  explicit Shape(const fs::path& folder) {
    const auto json = nlohmann::json::parse(read_text(folder / "config.json"));
    heads = json["num_attention_heads"];
    nope = json["qk_nope_head_dim"];
    value = json["v_head_dim"];
    rank = json["kv_lora_rank"];
    layers = json["num_hidden_layers"];
  }
};

std::vector<float> floats(const Loaded& tensor) {
  REQUIRE(tensor.dtype == DType::kF32);
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

// Values in the form a file stores them in.
std::string stored(const std::vector<float>& values, const std::string& type) {
  std::string bytes;
  if (type == "Q8_0") {
    bytes.resize(values.size() / 32 * 34);
    encode_q8_0(values.data(), static_cast<std::int64_t>(values.size()),
                reinterpret_cast<std::byte*>(bytes.data()));
    return bytes;
  }
  for (const float value : values) {
    char raw[4];
    std::size_t size = 4;
    if (type == "F32") std::memcpy(raw, &value, size);
    if (type != "F32") {
      size = 2;
      const std::uint16_t bits = type == "BF16" ? bf16(value).bits : f16(value).bits;
      std::memcpy(raw, &bits, size);
    }
    bytes.append(raw, size);
  }
  return bytes;
}

struct Expected {
  std::vector<std::int64_t> shape;
  std::vector<float> values;
};

// By the rules of reference/formats.md section 8, from the F32 form of a checkpoint.
std::map<std::string, Expected> expected(const std::map<std::string, Loaded>& source,
                                         const Shape& shape, bool split) {
  const std::map<std::string, std::string> names{
      {"input_layernorm", "attn_norm"},
      {"post_attention_layernorm", "ffn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.q_a_proj", "attn_q_a"},
      {"self_attn.q_a_layernorm", "attn_q_a_norm"},
      {"self_attn.q_b_proj", "attn_q_b"},
      {"self_attn.kv_a_proj_with_mqa", "attn_kv_a_mqa"},
      {"self_attn.kv_a_layernorm", "attn_kv_a_norm"},
      {"self_attn.kv_b_proj", "attn_kv_b"},
      {"self_attn.o_proj", "attn_output"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"mlp.gate", "ffn_gate_inp"},
      {"mlp.shared_experts.gate_proj", "ffn_gate_shexp"},
      {"mlp.shared_experts.up_proj", "ffn_up_shexp"},
      {"mlp.shared_experts.down_proj", "ffn_down_shexp"}};
  std::map<std::string, Expected> out;
  for (const auto& [name, tensor] : source) {
    const std::vector<float> values = floats(tensor);
    if (name == "model.embed_tokens.weight") {
      out["token_embd.weight"] = {tensor.shape, values};
    } else if (name == "model.norm.weight") {
      out["output_norm.weight"] = {tensor.shape, values};
    } else if (name == "lm_head.weight") {
      out["output.weight"] = {tensor.shape, values};
    }
    if (!name.starts_with("model.layers.")) continue;
    const std::size_t dot = name.find('.', 13);
    const std::string layer = name.substr(13, dot - 13), block = "blk." + layer + ".";
    if (std::stoi(layer) >= shape.layers) continue;
    std::string part = name.substr(dot + 1);
    if (part == "mlp.gate.e_score_correction_bias") {
      out[block + "exp_probs_b.bias"] = {tensor.shape, values};
      continue;
    }
    REQUIRE(part.ends_with(".weight"));
    part.resize(part.size() - 7);
    if (part.starts_with("mlp.experts.")) {
      const std::size_t end = part.find('.', 12);
      const auto expert = static_cast<std::size_t>(std::stoi(part.substr(12)));
      const std::string kind = part.substr(end + 1, part.find('_', end) - end - 1);
      Expected& stack = out[block + "ffn_" + kind + "_exps.weight"];
      const auto count = static_cast<std::int64_t>(expert) + 1;
      if (stack.shape.empty()) stack.shape = {0, tensor.shape[0], tensor.shape[1]};
      stack.shape[0] = std::max(stack.shape[0], count);
      stack.values.resize(static_cast<std::size_t>(stack.shape[0]) * values.size());
      std::copy(values.begin(), values.end(),
                stack.values.begin() + static_cast<std::ptrdiff_t>(expert * values.size()));
    } else if (part == "self_attn.kv_b_proj" && split) {
      Expected keys{{shape.heads, shape.rank, shape.nope}, {}},
          rest{{shape.heads, shape.value, shape.rank}, {}};
      const auto at = [&](std::int64_t head, std::int64_t row, std::int64_t col) {
        return values[static_cast<std::size_t>(
            (head * (shape.nope + shape.value) + row) * shape.rank + col)];
      };
      for (std::int64_t h = 0; h < shape.heads; ++h) {
        for (std::int64_t c = 0; c < shape.rank; ++c) {
          for (std::int64_t r = 0; r < shape.nope; ++r) keys.values.push_back(at(h, r, c));
        }
        for (std::int64_t r = 0; r < shape.value; ++r) {
          for (std::int64_t c = 0; c < shape.rank; ++c)
            rest.values.push_back(at(h, shape.nope + r, c));
        }
      }
      out[block + "attn_k_b.weight"] = keys;
      out[block + "attn_v_b.weight"] = rest;
    } else {
      out[block + names.at(part) + ".weight"] = {tensor.shape, values};
    }
  }
  return out;
}

std::string type_of(const std::string& name, const Expected& tensor, const std::string& type) {
  if (tensor.shape.size() == 1 || name.ends_with("_norm.weight") ||
      name.ends_with("ffn_gate_inp.weight") || !name.ends_with(".weight")) {
    return "F32";
  }
  return type == "Q8_0" && tensor.shape.back() % 32 != 0 ? "F16" : type;
}

std::string bytes_of(const GgufModel::Entry& entry) {
  return {reinterpret_cast<const char*>(entry.file->data(*entry.tensor)), entry.tensor->bytes()};
}

void check_file(const GgufModel& model, const std::map<std::string, Expected>& wanted,
                const std::string& type) {
  CHECK(model.entries().size() == wanted.size());
  for (const auto& [name, tensor] : wanted) {
    const GgufModel::Entry entry = model.find(name);
    REQUIRE_MESSAGE(entry.tensor != nullptr, name);
    const std::string kept = type_of(name, tensor, type);
    CHECK_MESSAGE(entry.tensor->type_name() == kept, name);
    CHECK_MESSAGE(entry.tensor->shape == tensor.shape, name);
    CHECK_MESSAGE(bytes_of(entry) == stored(tensor.values, kept), name);
  }
}

std::string flag(std::string type) {
  std::transform(type.begin(), type.end(), type.begin(),
                 [](char c) { return static_cast<char>(std::tolower(c)); });
  return type;
}

// A tiny checkpoint of this clone, F32.
void tiny(const fs::path& folder, TinyModel model = {}) { write_tiny_model(folder, model); }

}  // namespace

TEST_CASE("gguf: every tensor of the tiny models in every type, split and unsplit") {
  for (const char* name : {"tiny-v2-lite", "tiny-v3", "tiny-v3-fp8", "tiny-moonlight"}) {
    const fs::path model = golden_model(name);
    if (model.empty()) return;
    const TempFolder temp;
    converted({"weights", model.string(), temp / "wide", "--to", "f32"});
    const auto source = load_folder(temp / "wide");
    for (const std::string type : {"BF16", "F16", "F32", "Q8_0"}) {
      for (const std::string mla : {"split", "unsplit"}) {
        CAPTURE(name);
        CAPTURE(type);
        CAPTURE(mla);
        const std::string file = temp / (type + mla + ".gguf");
        converted({"weights", model.string(), file, "--to", "gguf", "--gguf_type", flag(type),
                   "--mla", mla});
        const GgufModel result = GgufModel::open(file);
        check_file(result, expected(source, Shape(model), mla == "split"), type);
        CHECK(result.find_key("general.file_type")->integer() == (type == "F32"    ? 0
                                                                  : type == "F16"  ? 1
                                                                  : type == "Q8_0" ? 7
                                                                                   : 32));
        CHECK((result.find_key("general.quantization_version") != nullptr) == (type == "Q8_0"));
        CHECK(result.find_key("deepseek2.attention.head_count_kv")->integer() ==
              (mla == "split" ? 1 : Shape(model).heads));
      }
    }
  }
}

TEST_CASE("gguf: a BF16 checkpoint comes back with the same dtypes and bytes") {
  fs::path model = golden_model("tiny-v3");
  if (model.empty()) return;
  model = model.parent_path() / "tiny-v3-bf16";
  auto source = load_folder(model);
  std::erase_if(source,
                [](const auto& entry) { return entry.first.starts_with("model.layers.4."); });
  for (const std::string mla : {"split", "unsplit"}) {
    const TempFolder temp;
    converted({"weights", model.string(), temp / "m.gguf", "--to", "gguf", "--mla", mla});
    const Outcome outcome = converted({"weights", temp / "m.gguf", temp / "back", "--to", "hf"});
    CHECK(load_folder(temp / "back") == source);
    CHECK(has(outcome.err, "mscale 1: the file holds mscale_all_dim only"));
    CHECK(has(outcome.err, "no tokenizer files: the GGUF file has no tokenizer.* keys"));
    auto config = nlohmann::json::parse(read_text(fs::path(temp / "back") / "config.json"));
    const auto original = nlohmann::json::parse(read_text(model / "config.json"));
    for (const auto& [key, value] : original.items()) {
      if (key == "initializer_range" || key == "bos_token_id" || key == "eos_token_id") continue;
      CHECK_MESSAGE(config[key] == (key == "num_nextn_predict_layers" ? nlohmann::json(0) : value),
                    key);
    }
  }
}

TEST_CASE("gguf: a folder gets files of the wanted size, which are one model") {
  const TempFolder temp;
  tiny(temp / "in", {.tied = true, .mtp = true});
  const Outcome outcome = converted(
      {"weights", temp / "in", temp / "out", "--to", "gguf", "--max_shard_size", "100KB"});
  CHECK(has(outcome.err, "multi-token-prediction layers are left out"));
  CHECK(has(outcome.err, "the tokenizer.* keys are left out"));
  const GgufModel model = GgufModel::open(temp / "out");
  REQUIRE(model.files().size() > 2);
  CHECK(model.first().path().filename() == gguf_split_name("out", 1, model.files().size()));
  CHECK(model.find("output.weight").tensor == nullptr);
  std::uint64_t largest = 0;
  for (const auto& file : model.files()) {
    std::uint64_t bytes = 0;
    for (const GgufTensor& tensor : file->tensors()) bytes += tensor.bytes();
    if (file->tensors().size() > 1) largest = std::max(largest, bytes);
    CHECK(file->header().trailing_bytes == 0);
    CHECK(file->find_key("split.count")->type == GgufValueType::kU16);
  }
  CHECK(largest <= 100000);
  CHECK(model.files().back()->find_key("general.architecture") == nullptr);
  // The same tensors as in one file.
  converted({"weights", temp / "in", temp / "one.gguf", "--to", "gguf"});
  const GgufModel one = GgufModel::open(temp / "one.gguf");
  REQUIRE(one.entries().size() == model.entries().size());
  for (const GgufModel::Entry& entry : one.entries()) {
    CHECK(bytes_of(entry) == bytes_of(model.find(entry.tensor->name)));
  }
  // And back from any of the parts.
  converted({"weights", model.files().back()->path().string(), temp / "back", "--to", "hf"});
  converted({"weights", temp / "one.gguf", temp / "back_one", "--to", "hf"});
  CHECK(load_folder(temp / "back") == load_folder(temp / "back_one"));
  CHECK(load_folder(temp / "back").count("lm_head.weight") == 0);
}

TEST_CASE("gguf: Q8_0 and F16 files become BF16 and F16 checkpoints") {
  const TempFolder temp;
  tiny(temp / "in", {.q_lora = false});
  const auto source = load_folder(temp / "in");
  for (const std::string type : {"q8_0", "f16", "f32"}) {
    converted(
        {"weights", temp / "in", temp / (type + ".gguf"), "--to", "gguf", "--gguf_type", type});
    const Outcome outcome =
        converted({"weights", temp / (type + ".gguf"), temp / type, "--to", "hf"});
    CHECK(has(outcome.err, "Q8_0 tensors become BF16") == (type == "q8_0"));
    const auto result = load_folder(temp / type);
    REQUIRE(result.size() == source.size());
    const std::string name = "model.layers.1.mlp.experts.5.up_proj.weight";
    const std::vector<float> values = floats(source.at(name));
    if (type == "q8_0") {
      std::vector<float> back(values.size());
      const std::string blocks = stored(values, "Q8_0");
      decode_q8_0(reinterpret_cast<const std::byte*>(blocks.data()),
                  static_cast<std::int64_t>(values.size()), back.data());
      CHECK(result.at(name).dtype == DType::kBF16);
      CHECK(result.at(name).bytes == stored(back, "BF16"));
    } else {
      CHECK(result.at(name).bytes == stored(values, type == "f16" ? "F16" : "F32"));
    }
    // Norms and router hold values that BF16 or F16 cannot: F32 they stay.
    CHECK(result.at("model.layers.1.mlp.gate.weight") ==
          source.at("model.layers.1.mlp.gate.weight"));
    CHECK(result.at("model.norm.weight") == source.at("model.norm.weight"));
  }
}

TEST_CASE("gguf: the tokenizer goes into the keys and comes back") {
  const fs::path model = source_dir() / "examples" / "nano-v3";
  const fs::path shared = shared_dir().empty() ? fs::path() : shared_dir() / "models" / "nano-v3";
  const fs::path folder = fs::exists(model / "tokenizer.json") ? model : shared;
  if (folder.empty()) {
    MESSAGE("skipped: no nano-v3");
    return;
  }
  const TempFolder temp;
  converted({"weights", folder.string(), temp / "m.gguf", "--to", "gguf"});
  const GgufFile file = GgufFile::open(temp / "m.gguf");
  const auto text = [&](const char* key) { return file.find_key(key)->text(); };
  CHECK(text("tokenizer.ggml.model") == "gpt2");
  CHECK(text("tokenizer.ggml.pre") == "deepseek-v3");
  CHECK(file.find_key("tokenizer.ggml.bos_token_id")->integer() == 0);
  CHECK(file.find_key("tokenizer.ggml.eos_token_id")->integer() == 1);
  CHECK(file.find_key("tokenizer.ggml.padding_token_id")->integer() == 1);
  CHECK(file.find_key("tokenizer.ggml.add_bos_token")->boolean());
  const auto json = nlohmann::json::parse(read_text(folder / "tokenizer.json"));
  const auto config = nlohmann::json::parse(read_text(folder / "config.json"));
  const auto tokens = file.find_key("tokenizer.ggml.tokens")->texts();
  const auto types = file.find_key("tokenizer.ggml.token_type")->integers();
  REQUIRE(tokens.size() == config["vocab_size"].get<std::size_t>());
  REQUIRE(types.size() == tokens.size());
  std::size_t named = 0;
  std::map<std::int64_t, std::string> added;
  for (const auto& token : json["added_tokens"]) added[token["id"]] = token["content"];
  for (const auto& [token, id] : json["model"]["vocab"].items()) {
    if (added.count(id) > 0) continue;
    CHECK(tokens[id] == token);
    CHECK(types[id] == 1);
    ++named;
  }
  for (const auto& [id, token] : added) {
    const auto at = static_cast<std::size_t>(id);
    CHECK(tokens[at] == token);
    CHECK(types[at] == (token.starts_with("<｜") || token.starts_with("<|") ? 3 : 4));
    ++named;
  }
  for (std::size_t i = named; i < tokens.size(); ++i) {
    CHECK(tokens[i] == "[PAD" + std::to_string(i) + "]");
    CHECK(types[i] == 5);
  }
  const auto& merges = json["model"]["merges"];
  const auto stored_merges = file.find_key("tokenizer.ggml.merges")->texts();
  REQUIRE(stored_merges.size() == merges.size());
  CHECK(stored_merges.back() ==
        (merges.back().is_string()
             ? merges.back().get<std::string>()
             : merges.back()[0].get<std::string>() + " " + merges.back()[1].get<std::string>()));

  converted({"weights", temp / "m.gguf", temp / "back", "--to", "hf"});
  const Tokenizer before = Tokenizer::load(folder), after = Tokenizer::load(temp / "back");
  for (const std::string words :
       {"What is my balance?  1234 \n", "<｜User｜>你好，世界<｜Assistant｜></think>ok",
        "naïve façade — 🙂 \t x"}) {
    CHECK(after.encode(words) == before.encode(words));
  }
  CHECK(after.chat_template() == before.chat_template());
  CHECK(after.bos_id() == before.bos_id());
  CHECK(after.eos_id() == before.eos_id());
  CHECK(after.pad_id() == before.pad_id());
  CHECK(after.adds_bos() == before.adds_bos());
  REQUIRE(after.added_tokens().size() == before.added_tokens().size());
  for (std::size_t i = 0; i < after.added_tokens().size(); ++i) {
    CHECK(after.added_tokens()[i].text == before.added_tokens()[i].text);
    CHECK(after.added_tokens()[i].id == before.added_tokens()[i].id);
    CHECK(after.added_tokens()[i].special == before.added_tokens()[i].special);
  }
}

}  // namespace ds::test
