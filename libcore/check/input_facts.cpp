#include "libcore/check/input_facts.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/check/adapter_keys.h"
#include "libcore/check/checks.h"
#include "libcore/check/gguf_target.h"
#include "libcore/check/inference_target.h"
#include "libcore/check/tensor_facts.h"
#include "libcore/config/inference_names.h"
#include "libcore/text/tokenizer.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr std::int32_t kThinkOfV3 = 128798;
constexpr std::int64_t kSizeOfV3 = 128815;
constexpr std::string_view kSearch = "<\uff5csearch\u2581begin\uff5c>";

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

void read_config(const json& config, InputFacts& facts) {
  facts.remote_code = config.contains("auto_map");
  const auto quantisation = config.find("quantization_config");
  if (quantisation == config.end()) return;
  facts.fp8_declared = text_of(*quantisation, "quant_method") == "fp8";
  facts.ue8m0 = text_of(*quantisation, "scale_fmt") == "ue8m0";
}

void read_template(const std::string& text, TokenizerFacts& facts) {
  facts.has_template = !text.empty();
  facts.chat_template = examine_chat_template(text);
  facts.splits_once = text.find("', 1)") != std::string::npos;
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
  facts.search = tokenizer->id_of(kSearch);
  if (facts.size == kSizeOfV3) facts.at_think = std::string(tokenizer->token_bytes(kThinkOfV3));
  read_template(tokenizer->chat_template(), facts);
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

void read_checkpoint(const fs::path& folder, InputFacts& facts, Findings& findings) {
  const CheckpointTarget target(folder, findings);
  check_checkpoint(target, findings);
  facts.json = target.json();
  facts.config = target.config();
  if (facts.json) read_config(*facts.json, facts);
  check_tokenizer(folder, facts.json ? &*facts.json : nullptr,
                  facts.config ? &*facts.config : nullptr, findings);
  TensorReader reader(facts.config, facts.tensors);
  for (const Checkpoint::Entry& entry : target.entries()) {
    reader.add(*entry.file, *entry.tensor, entry.tensor->name);
  }
  read_tokenizer(folder, facts.tokenizer);
}

// ---- GGUF

std::string_view gguf_text(const GgufFile& file, std::string_view name) {
  const GgufKey* key = file.find_key(name);
  return key != nullptr && key->type == GgufValueType::kString ? key->text() : std::string_view();
}

void read_gguf_vocabulary(const GgufFile& file, TokenizerFacts& facts) {
  const GgufKey* key = file.find_key("tokenizer.ggml.tokens");
  facts.readable = key != nullptr && key->is_array() && key->element == GgufValueType::kString;
  if (!facts.readable) return;
  std::vector<std::string_view> tokens = key->texts();
  // Rows of the embedding that no token has.
  while (!tokens.empty() && tokens.back().starts_with("[PAD")) tokens.pop_back();
  facts.size = static_cast<std::int64_t>(tokens.size());
  const auto id_of = [&](std::string_view token) {
    const auto at = std::find(tokens.begin(), tokens.end(), token);
    return at == tokens.end() ? -1 : static_cast<std::int32_t>(at - tokens.begin());
  };
  facts.think = id_of("<think>");
  facts.think_end = id_of("</think>");
  facts.search = id_of(kSearch);
  if (facts.size == kSizeOfV3) facts.at_think = tokens[static_cast<std::size_t>(kThinkOfV3)];
  read_template(std::string(gguf_text(file, "tokenizer.chat_template")), facts);
}

// What deepseek-convert reads of a GGUF file.
bool goes_back(const GgufTensor& tensor) {
  return tensor.is(GgmlType::kF32) || tensor.is(GgmlType::kF16) || tensor.is(GgmlType::kBF16) ||
         tensor.is(GgmlType::kQ80);
}

void read_gguf_tensors(const GgufTarget& target, InputFacts& facts) {
  std::map<std::uint32_t, std::uint64_t> bytes;
  for (const GgufModel::Entry& entry : target.entries()) {
    const GgufTensor& tensor = *entry.tensor;
    bytes[tensor.type] += tensor.bytes();
    std::uint64_t elements = 1;
    for (const std::int64_t side : tensor.shape) elements *= static_cast<std::uint64_t>(side);
    const bool blocks = ggml_type_info(tensor.type)->block_values > 1;
    const bool wide = tensor.is(GgmlType::kF32) && !tensor.name.ends_with(".exp_probs_b.bias");
    ++facts.tensors.count;
    facts.tensors.bytes += tensor.bytes();
    facts.tensors.bytes_bf16 += blocks || wide ? 2 * elements : tensor.bytes();
    facts.gguf.blocks = facts.gguf.blocks || blocks;
    if (facts.gguf.one_way.empty() && !goes_back(tensor)) facts.gguf.one_way = tensor.type_name();
    if (tensor.name.ends_with(".attn_kv_b.weight")) facts.gguf.mla = GgufMla::kUnsplit;
  }
  std::vector<std::pair<std::uint64_t, std::uint32_t>> order;
  for (const auto& [type, size] : bytes) order.emplace_back(size, type);
  std::sort(order.rbegin(), order.rend());
  for (const auto& [size, type] : order) {
    const double share =
        100.0 * static_cast<double>(size) / static_cast<double>(facts.tensors.bytes);
    facts.gguf.types +=
        fmt::format("{}{} {}", facts.gguf.types.empty() ? "" : ", ", ggml_type_info(type)->name,
                    share < 1.0 ? "below 1 %" : fmt::format("{:.0f} %", share));
  }
}

void read_gguf_model(const fs::path& path, InputFacts& facts, Findings& findings) {
  const GgufTarget target(path, findings);
  facts.config = check_gguf(target, nullptr, findings);
  read_gguf_tensors(target, facts);
  facts.gguf.parts = target.files().size();
  if (target.first() == nullptr) return;
  const std::string_view pre = gguf_text(*target.first(), "tokenizer.ggml.pre");
  facts.gguf.pre = pre;
  read_gguf_vocabulary(*target.first(), facts.tokenizer);
}

// As kWithoutAdapters, by the names of a GGUF file.
constexpr std::array<std::string_view, 8> kGgufWithoutAdapters{
    ".attn_q.",    ".attn_q_a.", ".attn_q_b.", ".attn_kv_a_mqa.",
    ".attn_kv_b.", ".attn_k_b.", ".attn_v_b.", "output."};

void read_gguf_adapter(const fs::path& path, const ModelConfig* base, const InputFacts* model,
                       InputFacts& facts, Findings& findings) {
  const GgufTarget target(path, findings);
  if (target.first() == nullptr) return;
  check_gguf_adapter(target, base, nullptr, findings);
  AdapterFacts& adapter = facts.adapter;
  adapter.base = gguf_text(*target.first(), "general.base_model.0.name");
  if (model != nullptr) {
    adapter.base_kind = model->input.kind;
    adapter.base_mla = model->gguf.mla;
  }
  std::set<std::string> plain;
  for (const GgufModel::Entry& entry : target.entries()) {
    const std::string& name = entry.tensor->name;
    if (!name.ends_with(".lora_a")) continue;
    const std::string module = name.substr(0, name.size() - std::string_view(".lora_a").size());
    const bool unsplit = module.ends_with(".attn_kv_b.weight");
    if (unsplit || module.ends_with(".attn_k_b.weight") || module.ends_with(".attn_v_b.weight")) {
      adapter.mla_tensor = module;
      adapter.mla = unsplit ? GgufMla::kUnsplit : GgufMla::kSplit;
    }
    const bool head = module.starts_with("output.");
    adapter.embeddings = adapter.embeddings || head || module.starts_with("token_embd.");
    adapter.experts = adapter.experts || module.find("_exps.") != std::string::npos;
    for (const std::string_view part : kGgufWithoutAdapters) {
      const bool found = part == "output." ? head : module.find(part) != std::string::npos;
      if (found) plain.insert(module);
    }
  }
  adapter.graph_plain.assign(plain.begin(), plain.end());
}

// ---- DeepSeek's inference layout

void read_inference(const fs::path& folder, InputFacts& facts, Findings& findings) {
  const InferenceTarget target(folder, findings);
  check_inference(target, nullptr, findings);
  facts.json = target.json();
  facts.config = target.config();
  if (facts.json) read_config(*facts.json, facts);
  check_tokenizer(folder, facts.json ? &*facts.json : nullptr,
                  facts.config ? &*facts.config : nullptr, findings);
  facts.inference.ranks = target.ranks();
  const json config = object_of(folder / "config.json");
  facts.inference.has_config = config.is_object();
  facts.inference.demo_config = config.is_object() && !facts.json;
  if (facts.inference.demo_config) {
    facts.inference.dtype = text_of(config, "dtype");
    facts.fp8_declared = facts.inference.dtype == "fp8";
    facts.ue8m0 = text_of(config, "scale_fmt") == "ue8m0";
  }
  TensorReader reader(facts.config, facts.tensors);
  std::set<std::string> copied;
  for (const auto& shard : target.shards()) {
    if (shard == nullptr) continue;
    std::uint64_t bytes = 0;
    for (const TensorInfo& tensor : shard->tensors()) {
      bytes += tensor.bytes();
      const auto name = to_hf_name(tensor.name);
      if (!name) continue;
      const bool copy = name->split == InferenceSplit::kReplicated;
      if (copy && !copied.emplace(tensor.name).second) continue;
      reader.add(*shard, tensor, name->name);
    }
    facts.inference.largest_shard = std::max(facts.inference.largest_shard, bytes);
  }
  read_tokenizer(folder, facts.tokenizer);
}

}  // namespace

std::string InputFacts::convert(const std::string& to) const {
  const bool to_gguf = to.starts_with("gguf");
  const auto command = [&](const char* from, const char* out) {
    return fmt::format("deepseek-convert weights {} {}{} --to {}", from, out,
                       to_gguf ? ".gguf" : "", to);
  };
  const std::string& one_way = gguf.one_way;
  if (!one_way.empty()) {
    return fmt::format(
        "take the checkpoint that it was made from: deepseek-convert does not read {}", one_way);
  }
  const bool through = input.kind == TargetKind::kGguf || input.kind == TargetKind::kInference;
  if (!through || to == "hf") return command("IN", "OUT");
  return "deepseek-convert weights IN HF --to hf, then " + command("HF", "OUT");
}

InputFacts examine(const Detected& input, const ModelConfig* base, const InputFacts* model) {
  InputFacts facts;
  facts.input = input;
  Findings findings;
  switch (input.kind) {
    case TargetKind::kCheckpoint:
      read_checkpoint(input.path, facts, findings);
      break;
    case TargetKind::kTokenizer:
      check_tokenizer(input.path, nullptr, nullptr, findings);
      read_tokenizer(input.path, facts.tokenizer);
      break;
    case TargetKind::kAdapter:
      check_adapter(input.path, base, false, findings);
      read_adapter(input.path, facts.adapter);
      break;
    case TargetKind::kGguf:
      read_gguf_model(input.path, facts, findings);
      break;
    case TargetKind::kGgufAdapter:
      read_gguf_adapter(input.path, base, model, facts, findings);
      break;
    case TargetKind::kInference:
      read_inference(input.path, facts, findings);
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
