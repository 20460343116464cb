// A small sound deepseek2 GGUF file with a vocabulary, to be spoilt.
#pragma once

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "libcore/check/near_miss.h"
#include "libcore/config/gguf_names.h"
#include "libcore/io/gguf.h"
#include "tests/core/check/model_fixture.h"

namespace ds::test {

// What a file is made of. Spoil it here, or spoil its bytes.
struct GgufSpec {
  using Value = std::variant<std::int64_t, double, bool, std::string, std::vector<std::string>,
                             std::vector<std::int32_t>>;
  std::vector<std::pair<std::string, Value>> keys;
  std::vector<GgufTensorToWrite> tensors;
  float fill = 0.25f;                     // every value of F32 tensors
  std::vector<std::string> not_a_number;  // tensors whose first value is NaN

  Value& key(const std::string& name) {
    for (auto& [known, value] : keys) {
      if (known == name) return value;
    }
    keys.emplace_back(name, Value());
    return keys.back().second;
  }
  void drop_key(const std::string& name) {
    const auto end = std::remove_if(keys.begin(), keys.end(),
                                    [&](const auto& entry) { return entry.first == name; });
    REQUIRE_MESSAGE(end != keys.end(), name);
    keys.erase(end, keys.end());
  }
  GgufTensorToWrite& tensor(const std::string& name) {
    for (GgufTensorToWrite& known : tensors) {
      if (known.name == name) return known;
    }
    FAIL(name);
    return tensors.front();
  }
  void drop_tensor(const std::string& name) {
    tensor(name);
    tensors.erase(std::remove_if(tensors.begin(), tensors.end(),
                                 [&](const auto& known) { return known.name == name; }),
                  tensors.end());
  }

  std::string bytes() const {
    GgufKeyWriter out;
    for (const auto& [name, value] : keys) {
      if (const auto* integer = std::get_if<std::int64_t>(&value)) {
        out.u32(name, static_cast<std::uint32_t>(*integer));
      } else if (const auto* number = std::get_if<double>(&value)) {
        out.f32(name, static_cast<float>(*number));
      } else if (const auto* flag = std::get_if<bool>(&value)) {
        out.boolean(name, *flag);
      } else if (const auto* text = std::get_if<std::string>(&value)) {
        out.text(name, *text);
      } else if (const auto* texts = std::get_if<std::vector<std::string>>(&value)) {
        out.texts(name, *texts);
      } else {
        out.i32s(name, std::get<std::vector<std::int32_t>>(value));
      }
    }
    const GgufLayout layout = layout_gguf(out, tensors);
    std::string file = layout.start;
    file.resize(layout.bytes, '\0');
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      if (tensors[i].type != GgmlType::kF32) continue;
      const std::uint64_t size = gguf_tensor_bytes(tensors[i]);
      for (std::uint64_t at = 0; at < size; at += sizeof fill) {
        std::memcpy(file.data() + layout.offsets[i] + at, &fill, sizeof fill);
      }
      if (std::find(not_a_number.begin(), not_a_number.end(), tensors[i].name) !=
          not_a_number.end()) {
        const float bad = std::nanf("");
        std::memcpy(file.data() + layout.offsets[i], &bad, sizeof bad);
      }
    }
    return file;
  }
  void write(const std::filesystem::path& path) const { write_text(path, bytes()); }
  // Two parts with split.* keys; keys in the first.
  void write_split(const std::filesystem::path& folder, const std::string& name) const {
    std::filesystem::create_directories(folder);
    for (std::int64_t part = 0; part < 2; ++part) {
      GgufSpec one = *this;
      if (part == 1) one.keys.clear();
      one.key("split.no") = part;
      one.key("split.count") = std::int64_t{2};
      one.key("split.tensors.count") = static_cast<std::int64_t>(tensors.size());
      const auto half = static_cast<std::ptrdiff_t>(tensors.size() / 2);
      if (part == 0) {
        one.tensors.erase(one.tensors.begin() + half, one.tensors.end());
      } else {
        one.tensors.erase(one.tensors.begin(), one.tensors.begin() + half);
      }
      one.write(folder / gguf_split_name(name, static_cast<std::size_t>(part) + 1, 2));
    }
  }
};

inline ModelConfig gguf_config(TinyModel tiny = {}) {
  return parse_model_config(sound_model(tiny, false).config, "config.json");
}

inline GgufSpec sound_gguf(GgufMla mla = GgufMla::kSplit, TinyModel tiny = {}) {
  const ModelConfig config = gguf_config(tiny);
  GgufSpec spec;
  spec.key("general.architecture") = std::string("deepseek2");
  spec.key("general.type") = std::string("model");
  for (const GgufMetadata& entry : gguf_metadata(config, mla)) {
    std::visit([&](const auto& value) { spec.key(entry.key) = value; }, entry.value);
  }
  spec.key("general.file_type") = std::int64_t{0};
  std::vector<std::string> tokens = check::control_tokens();
  std::vector<std::int32_t> types(tokens.size(), 3);
  for (const char* plain : {"a", "b", "ab"}) tokens.emplace_back(plain);
  while (static_cast<std::int64_t>(tokens.size()) < config.vocab_size) {
    tokens.push_back("t" + std::to_string(tokens.size()));
  }
  types.resize(tokens.size(), 1);
  spec.key("tokenizer.ggml.model") = std::string("gpt2");
  spec.key("tokenizer.ggml.pre") = std::string("deepseek-v3");
  spec.key("tokenizer.ggml.tokens") = tokens;
  spec.key("tokenizer.ggml.token_type") = types;
  spec.key("tokenizer.ggml.merges") = std::vector<std::string>{"a b"};
  spec.key("tokenizer.ggml.bos_token_id") = std::int64_t{0};
  spec.key("tokenizer.ggml.eos_token_id") = std::int64_t{1};
  spec.key("tokenizer.chat_template") =
      nlohmann::json::parse(
          read_text(source_dir() / "examples" / "nano-v3" / "tokenizer_config.json"))
          .at("chat_template")
          .get<std::string>();
  for (const GgufTensorPlan& tensor : gguf_tensor_plan(config, mla)) {
    spec.tensors.push_back({tensor.name, GgmlType::kF32, tensor.shape});
  }
  return spec;
}

// An adapter of rank 4 on every matrix of the model.
inline GgufSpec sound_gguf_adapter(const ModelConfig& base, GgufMla mla = GgufMla::kSplit) {
  GgufSpec spec;
  spec.key("general.architecture") = std::string("deepseek2");
  spec.key("general.type") = std::string("adapter");
  spec.key("adapter.type") = std::string("lora");
  spec.key("adapter.lora.alpha") = 16.0;
  for (const GgufTensorPlan& tensor : gguf_tensor_plan(base, mla)) {
    if (tensor.shape.size() < 2) continue;
    std::vector<std::int64_t> a = tensor.shape, b = tensor.shape;
    if (tensor.name == "token_embd.weight") {
      a.back() = 4;
      b = {tensor.shape.back(), 4};
    } else {
      a[a.size() - 2] = 4;
      b.back() = 4;
    }
    spec.tensors.push_back({tensor.name + ".lora_a", GgmlType::kF32, a});
    spec.tensors.push_back({tensor.name + ".lora_b", GgmlType::kF32, b});
  }
  return spec;
}

}  // namespace ds::test
