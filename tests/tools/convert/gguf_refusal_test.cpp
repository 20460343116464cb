// What --to gguf and its way back refuse; tiktoken ranks; odd but legal files.
#include <limits>

#include "libcore/base/error.h"
#include "libcore/io/gguf.h"
#include "tests/tools/convert/fixture.h"
#include "tools/convert/gguf_tokenizer.h"

namespace ds::test {

namespace {

std::vector<float> floats(const Loaded& tensor) {
  REQUIRE(tensor.dtype == DType::kF32);
  std::vector<float> values(tensor.bytes.size() / sizeof(float));
  std::memcpy(values.data(), tensor.bytes.data(), tensor.bytes.size());
  return values;
}

}  // namespace

TEST_CASE("gguf: merges of a tiktoken rank file") {
  // a b c (0-2), then "ab", "abc", "ca", "cab" (made of ca and b: of "c" and "ab" as ab comes
  // first).
  const auto vocabulary = convert::read_tiktoken(
      "YQ== 0\nYg== 1\nYw== 2\nYWI= 3\nYWJj 4\nY2E= 5\nY2Fi 6\nIA== 7\nICA= 8\n", "t");
  CHECK(vocabulary.tokens ==
        std::vector<std::string>{"a", "b", "c", "ab", "abc", "ca", "cab", "Ġ", "ĠĠ"});
  CHECK(vocabulary.merges == std::vector<std::string>{"a b", "ab c", "c a", "c ab", "Ġ Ġ"});
  const auto refused = [](const std::string& text) -> std::string {
    try {
      convert::read_tiktoken(text, "t");
    } catch (const Error& error) {
      return error.what();
    }
    return "no error";
  };
  CHECK(has(refused(""), "no ranks"));
  CHECK(has(refused("YQ== 0\nYg==\n"), "t: line 2: there is no space"));
  CHECK(has(refused("YQ== 1\n"), "the rank is 1, needed is 0"));
  CHECK(has(refused("YQ== x\n"), "the rank is no number"));
  CHECK(has(refused("Y!== 0\n"), "no base64"));
  CHECK(has(refused("YQ= 0\n"), "no whole base64"));
  CHECK(has(refused("YQ== 0\nYQ== 1\n"), "was there before"));
  CHECK(has(refused(" 0\n"), "has 0 bytes"));

  const TempFolder temp;
  write_tiny_model(temp / "in", {});
  write_text(fs::path(temp / "in") / "tiktoken.model", "YQ== 0\nYg== 1\nYWI= 2\n");
  write_text(fs::path(temp / "in") / "tokenizer_config.json",
             R"({"added_tokens_decoder":{"3":{"content":"[BOS]"}},"chat_template":"T"})");
  converted({"weights", temp / "in", temp / "m.gguf", "--to", "gguf"});
  const GgufFile file = GgufFile::open(temp / "m.gguf");
  CHECK(file.find_key("tokenizer.ggml.pre")->text() == "kimi-k2");
  CHECK(file.find_key("tokenizer.ggml.merges")->texts() == std::vector<std::string_view>{"a b"});
  const auto tokens = file.find_key("tokenizer.ggml.tokens")->texts();
  CHECK(tokens[2] == "ab");
  CHECK(tokens[3] == "[BOS]");
  CHECK(tokens[4] == "<|reserved_token_4|>");
  CHECK(tokens[299] == "[PAD299]");
  CHECK(file.find_key("tokenizer.chat_template")->text() == "T");
}

TEST_CASE("gguf: what cannot be right is refused by name, and nothing is left behind") {
  const TempFolder temp;
  write_tiny_model(temp / "in", {.mtp = true});
  const std::string config = read_text(fs::path(temp / "in") / "config.json");
  const auto tensors = load_folder(temp / "in");
  const auto refused = [&](const std::vector<std::string>& words, int code) {
    const Outcome outcome = convert(words);
    CHECK_MESSAGE(outcome.exit_code == code, outcome.err);
    CHECK_FALSE(fs::exists(temp / "out.gguf"));
    CHECK_FALSE(fs::exists(temp / "out"));
    CHECK_FALSE(fs::exists(temp / "out.partial"));
    return outcome.err;
  };
  const auto with = [&](const std::function<void(std::map<std::string, Loaded>&)>& change) {
    auto changed = tensors;
    change(changed);
    save_folder(temp / "bad", config, changed);
    return refused({"weights", temp / "bad", temp / "out.gguf", "--to", "gguf"}, 3);
  };
  const std::string expert = "model.layers.2.mlp.experts.7.down_proj.weight";
  CHECK(has(with([&](auto& t) { t.erase(expert); }), "tensor " + expert + " is missing"));
  CHECK(has(with([&](auto& t) {
              t[expert].shape = {t[expert].shape[1], t[expert].shape[0]};
            }),
            "tensor " + expert + " is [32, 64], config.json makes it [64, 32]"));
  CHECK(has(
      with([&](auto& t) { t["model.layers.1.self_attn.o_proj.bias"] = t["model.norm.weight"]; }),
      "tensor model.layers.1.self_attn.o_proj.bias has no place in a deepseek2 file"));
  CHECK(has(with([&](auto& t) {
              Loaded& weight = t["model.layers.0.mlp.up_proj.weight"];
              weight.dtype = DType::kF8E4M3;
              weight.bytes.resize(weight.bytes.size() / 4);
            }),
            "tensor model.layers.0.mlp.up_proj.weight is F8_E4M3 and has no"));

  const std::string in = temp / "in";
  CHECK(has(refused({"weights", in, temp / "out", "--to", "gguf", "--mtp", "keep"}, 2),
            "--mtp keep"));
  CHECK(has(refused({"weights", in, temp / "out", "--to", "bf16", "--gguf_type", "q8_0"}, 2),
            "--gguf_type goes with --to gguf"));
  CHECK(has(refused({"weights", in, temp / "out", "--to", "hf", "--mla", "unsplit"}, 2),
            "--mla goes with --to gguf"));

  // f16 and Q8_0 have their limits.
  auto large = tensors;
  std::vector<float> values = floats(large.at(expert));
  values[5] = 1e6F;
  std::memcpy(large.at(expert).bytes.data(), values.data(), large.at(expert).bytes.size());
  save_folder(temp / "large", config, large);
  CHECK(has(
      refused({"weights", temp / "large", temp / "out", "--to", "gguf", "--gguf_type", "f16"}, 3),
      "tensor " + expert + ": 1 values are beyond 65504"));
  values[5] = std::numeric_limits<float>::quiet_NaN();
  std::memcpy(large.at(expert).bytes.data(), values.data(), large.at(expert).bytes.size());
  save_folder(temp / "large", config, large);
  CHECK(has(
      refused({"weights", temp / "large", temp / "out", "--to", "gguf", "--gguf_type", "q8_0"}, 3),
      "tensor " + expert + " at [0, 5] is nan"));

  // The way back.
  converted({"weights", in, temp / "m.gguf", "--to", "gguf"});
  const std::string bytes = read_text(temp / "m.gguf");
  const std::string file = temp / "broken.gguf";
  const auto back = [&](std::string changed, const std::string& to = "hf", int code = 3) {
    write_text(file, changed);
    return refused({"weights", file, temp / "out", "--to", to}, code);
  };
  const auto replaced = [&](const std::string& from, const std::string& to) {
    std::string changed = bytes;
    const std::size_t at = changed.find(from);
    REQUIRE(at != std::string::npos);
    return changed.replace(at, from.size(), to);
  };
  CHECK(has(back(bytes.substr(0, bytes.size() / 2)), "truncated"));
  CHECK(has(back(bytes, "bf16", 2), "a GGUF file goes with --to hf, not --to bf16"));
  CHECK(has(back(replaced("deepseek2", "deepseek9")), "'deepseek9', only deepseek2 is supported"));
  CHECK(has(back(replaced("deepseek2.block_count", "deepseek2.block_cound")),
            "key deepseek2.block_count is missing"));
  CHECK(has(back(replaced("blk.1.attn_output.weight", "blk.1.attn_outputs.wight")),
            "tensor blk.1.attn_output.weight is missing; tensor blk.1.attn_outputs.wight is none"));
  CHECK(has(back(replaced("blk.2.ffn_down_exps", "blk.2.ffn_dawn_exps")),
            "ffn_down_exps.weight is missing"));
}

TEST_CASE("gguf: a config that claims a million experts is refused with a short message") {
  const TempFolder temp;
  write_tiny_model(temp / "in", {});
  auto config = nlohmann::json::parse(read_text(fs::path(temp / "in") / "config.json"));
  config["num_hidden_layers"] = 4000;
  config["n_routed_experts"] = 240;
  write_text(fs::path(temp / "in") / "config.json", config.dump());
  const Outcome outcome = convert({"weights", temp / "in", temp / "out.gguf", "--to", "gguf"});
  CHECK(outcome.exit_code == 3);
  CHECK(has(outcome.err, "tensor model.layers.1.mlp.experts.8.gate_proj.weight is missing"));
  CHECK(has(outcome.err, " more"));
  CHECK(outcome.err.size() < 4000);
}

TEST_CASE("gguf: files with both forms of kv_b use the whole one") {
  const TempFolder temp;
  write_tiny_model(temp / "in", {});
  converted({"weights", temp / "in", temp / "split.gguf", "--to", "gguf", "--gguf_type", "f32"});
  converted({"weights", temp / "in", temp / "one.gguf", "--to", "gguf", "--gguf_type", "f32",
             "--mla", "unsplit"});
  // The unsplit file's keys and tensors, and the split one's k_b and v_b behind them.
  const GgufFile one = GgufFile::open(temp / "one.gguf"),
                 split = GgufFile::open(temp / "split.gguf");
  GgufKeyWriter keys;
  for (const GgufKey& key : one.keys()) {
    if (key.is_integer()) keys.u32(key.name, static_cast<std::uint32_t>(key.integer()));
    if (key.type == GgufValueType::kF32) keys.f32(key.name, static_cast<float>(key.number()));
    if (key.type == GgufValueType::kBool) keys.boolean(key.name, key.boolean());
    if (key.type == GgufValueType::kString) keys.text(key.name, key.text());
  }
  std::vector<GgufTensorToWrite> tensors;
  std::vector<std::string> data;
  const auto take = [&](const GgufFile& file, const GgufTensor& tensor) {
    tensors.push_back({tensor.name, GgmlType::kF32, tensor.shape});
    data.emplace_back(reinterpret_cast<const char*>(file.data(tensor)), tensor.bytes());
  };
  for (const GgufTensor& tensor : one.tensors()) take(one, tensor);
  for (const GgufTensor& tensor : split.tensors()) {
    if (has(tensor.name, "attn_k_b") || has(tensor.name, "attn_v_b")) take(split, tensor);
  }
  const GgufLayout layout = layout_gguf(keys, tensors);
  std::string bytes = layout.start;
  bytes.resize(layout.bytes, '\0');
  for (std::size_t i = 0; i < data.size(); ++i)
    bytes.replace(layout.offsets[i], data[i].size(), data[i]);
  write_text(temp / "both.gguf", bytes);
  converted({"weights", temp / "both.gguf", temp / "back", "--to", "hf"});
  CHECK(load_folder(temp / "back") == load_folder(temp / "in"));
}

}  // namespace ds::test
