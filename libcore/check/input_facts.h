// What one input is, as far as the compatibility checks ask.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/check/detect.h"
#include "libcore/check/finding.h"
#include "libcore/config/gguf_names.h"
#include "libcore/config/lora_config.h"
#include "libcore/config/model_config.h"
#include "libcore/text/chat_template.h"

namespace ds::check {

// Of inference shards what is whole in each of them counts once.
struct TensorFacts {
  std::int64_t count = 0;
  std::uint64_t bytes = 0;
  std::uint64_t bytes_bf16 = 0;  // FP8, block types and F32 in BF16, scales left out, bias in F32
  std::uint64_t largest_layer = 0;  // bytes of the largest layer (or head) as it is, MTP left out
  std::int64_t fp8 = 0;             // E4M3 weights
  std::int64_t ragged = 0;          // of those, weights with a side that is no multiple of 128
  std::string ragged_tensor;        // the first of them, and its shape
  std::string ragged_shape;
  std::string scale_dtype;        // of the first scale
  std::int64_t sampled = 0;       // scales that were looked at
  std::string mantissa_scale;     // the first of those that is no power of two
  bool prediction_layer = false;  // tensors of layers at and above num_hidden_layers
  std::string negative_bias;      // a router bias with a value below 0
};

struct TokenizerFacts {
  bool json = false;        // tokenizer.json is there
  bool readable = false;    // and could be read
  bool other = false;       // tiktoken.model or tokenizer.model instead
  bool has_config = false;  // tokenizer_config.json
  std::string token_class;  // tokenizer_class
  std::int64_t size = 0;
  std::int64_t max_length = 0;  // model_max_length, 0: not said
  std::int32_t think = -1, think_end = -1, search = -1;
  std::string at_think;       // what stands at 128798, in a vocabulary of V3's size
  std::string template_file;  // where the chat template is
  DetectedTemplate chat_template;
  bool has_template = false;
  bool splits_once = false;  // the template calls split(x, 1)
};

struct AdapterFacts {
  nlohmann::json config;  // adapter_config.json
  std::string base;       // base_model_name_or_path
  std::int64_t rank = 0;  // largest of its tensors
  bool dora = false;
  bool rslora = false;
  bool experts = false;                  // routed experts are adapted
  bool embeddings = false;               // embed_tokens or lm_head
  bool parameters = false;               // target_parameters are in use
  bool vocabulary = false;               // whole rows or matrices of the vocabulary are in the file
  std::vector<std::string> kv_b;         // modules kv_b_proj
  std::vector<std::string> graph_plain;  // modules llama.cpp multiplies by without adapters
  // Of a GGUF adapter: tensors of the base whose name depends on how kv_b is stored; and the model
  // it was checked against.
  std::string mla_tensor;
  GgufMla mla = GgufMla::kSplit;
  std::optional<TargetKind> base_kind;
  GgufMla base_mla = GgufMla::kSplit;
};

struct GgufFileFacts {
  GgufMla mla = GgufMla::kSplit;
  std::size_t parts = 1;
  // Types by bytes, most first: "Q4_K 84 %, F32 16 %".
  std::string types;
  bool blocks = false;  // a type of blocks, such as Q8_0
  std::string one_way;  // the first type that deepseek-convert does not read
  std::string pre;      // tokenizer.ggml.pre, empty: absent
};

struct InferenceFacts {
  std::int64_t ranks = 0;
  std::uint64_t largest_shard = 0;  // bytes of its tensors
  bool has_config = false;          // config.json
  bool demo_config = false;         // and in the demo's keys
  std::string dtype;                // "dtype" of the demo's config, empty: not said
};

struct InputFacts {
  Detected input;
  // What the plain checks found, by the rule's name: the first finding.
  std::map<std::string, Finding, std::less<>> found;
  std::optional<nlohmann::json> json;  // config.json
  std::optional<ModelConfig> config;
  bool remote_code = false;  // auto_map in config.json
  // quantization_config of config.json, which `config` leaves to the checks of its own; scale_fmt
  // of the demo's config.
  bool fp8_declared = false;
  bool ue8m0 = false;
  TensorFacts tensors;
  TokenizerFacts tokenizer;
  AdapterFacts adapter;
  GgufFileFacts gguf;
  InferenceFacts inference;

  const Finding* find(std::string_view rule) const {
    const auto at = found.find(rule);
    return at == found.end() ? nullptr : &at->second;
  }
  bool is_gguf() const {
    return input.kind == TargetKind::kGguf || input.kind == TargetKind::kGgufAdapter;
  }
  // Where what a folder has in a file of that name stands: a GGUF model has it in its keys.
  std::string file(const std::string& name) const {
    return is_gguf() ? input.path.string() : (input.path / name).string();
  }
  // The command of deepseek-convert that brings the weights into the form `to` ("hf", "bf16",
  // "inference --mp 8"): two of them where only a Hugging Face folder can be converted on, and in
  // words why there is none.
  std::string convert(const std::string& to) const;
};

// Runs the plain checks without --deep, and reads headers, small files and up to 64 scales. `base`
// is the model an adapter is checked against, and `model` what examine() made of it, where it did;
// both may be null. Throws Error(kIo), and Error(kBadInput) for a folder of several GGUF models.
InputFacts examine(const Detected& input, const ModelConfig* base,
                   const InputFacts* model = nullptr);

}  // namespace ds::check
