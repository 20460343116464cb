#include "libcore/check/input_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/check/adapter_keys.h"
#include "libcore/check/checks.h"
#include "libcore/check/expected_tensors.h"
#include "libcore/io/safetensors_header.h"
#include "libcore/text/tokenizer.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using kernels::DType;
using nlohmann::json;

constexpr std::int64_t kBlock = 128;
constexpr std::int64_t kScalesSampled = 64;  // tensors, and values of each
constexpr std::int32_t kThinkOfV3 = 128798;
constexpr std::int64_t kSizeOfV3 = 128815;

bool there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}

// A JSON object of the folder; null when it is not there or is none (the plain checks say so).
json object_of(const fs::path& path) {
  if (!there(path)) return nullptr;
  try {
    json value = parse_json_file(path);
    return value.is_object() ? value : json(nullptr);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) throw;
    return nullptr;
  }
}

std::string text_of(const json& object, const char* key) {
  if (!object.is_object() || !object.contains(key) || !object.at(key).is_string()) return "";
  return object.at(key);
}
bool flag_of(const json& object, const char* key) {
  return object.is_object() && object.contains(key) && object.at(key) == true;
}

std::uint64_t elements_of(const TensorInfo& tensor) {
  std::uint64_t elements = 1;
  for (const std::int64_t extent : tensor.shape) elements *= static_cast<std::uint64_t>(extent);
  return elements;
}

float float_at(const std::byte* data, std::uint64_t index) {
  float value = 0.0f;
  std::memcpy(&value, data + 4 * index, sizeof value);
  return value;
}

bool is_power_of_two(float value) {
  std::uint32_t bits = 0;
  std::memcpy(&bits, &value, sizeof bits);
  return (bits & 0x807fffffu) == 0;
}

// A side that is cut into blocks of which the last is smaller.
bool is_ragged(const TensorInfo& tensor) {
  return std::any_of(tensor.shape.begin(), tensor.shape.end(),
                     [](std::int64_t side) { return side > kBlock && side % kBlock != 0; });
}

class TensorReader {
 public:
  TensorReader(const std::optional<ModelConfig>& config, TensorFacts& facts)
      : config_(config), facts_(facts) {}

  void add(const SafetensorsFile& file, const TensorInfo& tensor) {
    const TensorName name = split_name(tensor.name);
    const std::uint64_t elements = elements_of(tensor);
    ++facts_.count;
    facts_.bytes += tensor.bytes();
    if (name.layer >= 0) {
      const bool prediction = config_ && name.layer >= config_->num_hidden_layers;
      facts_.prediction_layer = facts_.prediction_layer || prediction;
      std::uint64_t& layer = layers_[name.layer];
      layer += tensor.bytes();
      if (!prediction) facts_.largest_layer = std::max(facts_.largest_layer, layer);
    } else if (tensor.name == "lm_head.weight") {
      facts_.largest_layer = std::max(facts_.largest_layer, tensor.bytes());
    }
    if (name.scale) {
      scale(file, tensor, elements);
      return;
    }
    const bool bias = tensor.name.ends_with("e_score_correction_bias");
    const bool wide = tensor.dtype == DType::kF32 && !bias;
    const bool fp8 = tensor.dtype == DType::kF8E4M3;
    facts_.bytes_bf16 += fp8 || wide ? 2 * elements : tensor.bytes();
    if (fp8) {
      ++facts_.fp8;
      if (is_ragged(tensor) && ++facts_.ragged == 1) {
        facts_.ragged_tensor = tensor.name;
        facts_.ragged_shape = shape_text(tensor.shape);
      }
    }
    if (bias && tensor.dtype == DType::kF32 && facts_.negative_bias.empty()) {
      const std::byte* data = file.data(tensor);
      for (std::uint64_t i = 0; i < elements; ++i) {
        if (!(float_at(data, i) < 0.0f)) continue;
        facts_.negative_bias = tensor.name;
        break;
      }
    }
  }

 private:
  void scale(const SafetensorsFile& file, const TensorInfo& tensor, std::uint64_t elements) {
    if (facts_.scale_dtype.empty()) facts_.scale_dtype = kernels::dtype_name(tensor.dtype);
    if (tensor.dtype != DType::kF32 || scales_ >= kScalesSampled) return;
    ++scales_;
    const std::byte* data = file.data(tensor);
    const std::uint64_t count = std::min<std::uint64_t>(elements, kScalesSampled);
    for (std::uint64_t i = 0; i < count; ++i) {
      const float scale = float_at(data, i);
      if (!(scale > 0.0f)) continue;  // never written: --deep has a rule for it
      ++facts_.sampled;
      if (!is_power_of_two(scale) && facts_.mantissa_scale.empty()) {
        facts_.mantissa_scale = tensor.name;
      }
    }
  }

  const std::optional<ModelConfig>& config_;
  TensorFacts& facts_;
  std::map<std::int64_t, std::uint64_t> layers_;
  std::int64_t scales_ = 0;
};

void read_config(const json& config, InputFacts& facts) {
  facts.remote_code = config.contains("auto_map");
  const auto quantisation = config.find("quantization_config");
  if (quantisation == config.end()) return;
  facts.fp8_declared = text_of(*quantisation, "quant_method") == "fp8";
  facts.ue8m0 = text_of(*quantisation, "scale_fmt") == "ue8m0";
}

void read_tokenizer(const fs::path& folder, TokenizerFacts& facts) {
  facts.json = there(folder / "tokenizer.json");
  facts.other = there(folder / "tiktoken.model") || there(folder / "tokenizer.model");
  const json settings = object_of(folder / "tokenizer_config.json");
  facts.has_config = settings.is_object();
  facts.token_class = text_of(settings, "tokenizer_class");
  if (facts.has_config && settings.contains("model_max_length") &&
      settings.at("model_max_length").is_number_integer()) {
    facts.max_length = settings.at("model_max_length").get<std::int64_t>();
  }
  if (!facts.json) return;
  std::optional<Tokenizer> tokenizer;
  try {
    tokenizer = Tokenizer::load(folder);
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) throw;
    return;  // said by the plain checks
  }
  facts.readable = true;
  facts.size = tokenizer->vocab_size();
  facts.think = tokenizer->id_of("<think>");
  facts.think_end = tokenizer->id_of("</think>");
  facts.search = tokenizer->id_of("<\uff5csearch\u2581begin\uff5c>");
  if (facts.size == kSizeOfV3) facts.at_think = std::string(tokenizer->token_bytes(kThinkOfV3));
  const std::string& text = tokenizer->chat_template();
  facts.has_template = !text.empty();
  facts.chat_template = examine_chat_template(text);
  facts.splits_once = text.find("', 1)") != std::string::npos;
  facts.template_file =
      there(folder / "chat_template.jinja") ? "chat_template.jinja" : "tokenizer_config.json";
}

// Modules whose products llama.cpp's deepseek2 graph makes without looking for adapters
// (docs/merge.md).
constexpr std::array<std::string_view, 6> kWithoutAdapters{
    ".q_proj", ".q_a_proj", ".q_b_proj", ".kv_a_proj_with_mqa", ".kv_b_proj", "lm_head"};

void read_adapter(const fs::path& folder, AdapterFacts& facts) {
  facts.config = object_of(folder / "adapter_config.json");
  facts.base = text_of(facts.config, "base_model_name_or_path");
  facts.dora = flag_of(facts.config, "use_dora");
  facts.rslora = flag_of(facts.config, "use_rslora");
  if (facts.config.is_object() && facts.config.contains("target_parameters")) {
    const json& list = facts.config.at("target_parameters");
    facts.parameters = list.is_array() && !list.empty();
  }
  if (!there(folder / "adapter_model.safetensors")) return;
  try {
    const SafetensorsFile file = SafetensorsFile::open(folder / "adapter_model.safetensors");
    std::set<std::string> kv_b;
    std::set<std::string> plain;
    for (const TensorInfo& tensor : file.tensors()) {
      const AdapterKey key = split_adapter_key(tensor.name);
      const bool vocabulary = key.module.find("embed_tokens") != std::string::npos ||
                              key.module.find("lm_head") != std::string::npos;
      if (key.part == AdapterPart::kOther || key.part == AdapterPart::kBaseCopy) {
        facts.vocabulary = facts.vocabulary || vocabulary;
        continue;
      }
      facts.embeddings = facts.embeddings || vocabulary;
      facts.experts = facts.experts || key.part == AdapterPart::kFused ||
                      key.module.find(".mlp.experts.") != std::string::npos;
      if (key.part == AdapterPart::kA && !tensor.shape.empty()) {
        facts.rank = std::max(facts.rank, tensor.shape[0]);
      }
      if (key.part == AdapterPart::kMagnitude) facts.dora = true;
      if (key.module.ends_with(".kv_b_proj")) kv_b.insert(key.module);
      for (const std::string_view ending : kWithoutAdapters) {
        if (key.module.ends_with(ending)) plain.insert(key.module);
      }
    }
    facts.kv_b.assign(kv_b.begin(), kv_b.end());
    facts.graph_plain.assign(plain.begin(), plain.end());
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) throw;
  }
}

// By names: shards of DeepSeek's inference code are model0-mp8.safetensors.
Layout layout_of(const Detected& input, bool any_tensor) {
  if (input.kind != TargetKind::kCheckpoint) return Layout::kNone;
  std::error_code code;
  for (fs::directory_iterator it(input.path, code), end; !code && it != end; it.increment(code)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with("model") && name.find("-mp") != std::string::npos &&
        name.ends_with(".safetensors")) {
      return Layout::kInference;
    }
  }
  return any_tensor ? Layout::kHuggingFace : Layout::kNone;
}

}  // namespace

InputFacts examine(const Detected& input, const ModelConfig* base) {
  InputFacts facts;
  facts.input = input;
  Findings findings;
  switch (input.kind) {
    case TargetKind::kCheckpoint: {
      const CheckpointTarget target(input.path, findings);
      check_checkpoint(target, findings);
      facts.json = target.json();
      facts.config = target.config();
      if (facts.json) read_config(*facts.json, facts);
      check_tokenizer(input.path, facts.json ? &*facts.json : nullptr,
                      facts.config ? &*facts.config : nullptr, findings);
      TensorReader reader(facts.config, facts.tensors);
      for (const Checkpoint::Entry& entry : target.entries()) {
        reader.add(*entry.file, *entry.tensor);
      }
      facts.layout = layout_of(input, facts.tensors.count > 0);
      read_tokenizer(input.path, facts.tokenizer);
      break;
    }
    case TargetKind::kTokenizer:
      check_tokenizer(input.path, nullptr, nullptr, findings);
      read_tokenizer(input.path, facts.tokenizer);
      break;
    case TargetKind::kAdapter:
      check_adapter(input.path, base, false, findings);
      read_adapter(input.path, facts.adapter);
      break;
    default:
      break;
  }
  for (const Finding& finding : findings.sorted()) {
    facts.found.emplace(finding.rule->name, finding);
  }
  return facts;
}

}  // namespace ds::check
