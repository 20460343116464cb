// Keys and tensors of a deepseek2 GGUF file.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <nlohmann/json.hpp>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/check/alike.h"
#include "libcore/check/gguf_target.h"
#include "libcore/io/safetensors_header.h"

namespace ds::check {
namespace {

constexpr std::string_view kPrefix = "deepseek2.";
constexpr std::int64_t kMostBlocks = 100'000;

enum class Kind { kInteger, kNumber, kBool, kText };
enum class Need { kAlways, kSplit, kExperts, kYarn, kNever };
struct KnownKey {
  const char* name;
  Kind kind;
  Need need;
};
constexpr std::array kKeys{
    KnownKey{"block_count", Kind::kInteger, Need::kAlways},
    KnownKey{"context_length", Kind::kInteger, Need::kAlways},
    KnownKey{"embedding_length", Kind::kInteger, Need::kAlways},
    KnownKey{"feed_forward_length", Kind::kInteger, Need::kAlways},
    KnownKey{"attention.head_count", Kind::kInteger, Need::kAlways},
    KnownKey{"attention.head_count_kv", Kind::kInteger, Need::kNever},
    KnownKey{"attention.layer_norm_rms_epsilon", Kind::kNumber, Need::kAlways},
    KnownKey{"attention.q_lora_rank", Kind::kInteger, Need::kNever},
    KnownKey{"attention.kv_lora_rank", Kind::kInteger, Need::kAlways},
    KnownKey{"attention.key_length", Kind::kInteger, Need::kAlways},
    KnownKey{"attention.value_length", Kind::kInteger, Need::kAlways},
    KnownKey{"attention.key_length_mla", Kind::kInteger, Need::kSplit},
    KnownKey{"attention.value_length_mla", Kind::kInteger, Need::kSplit},
    KnownKey{"rope.dimension_count", Kind::kInteger, Need::kAlways},
    KnownKey{"rope.freq_base", Kind::kNumber, Need::kNever},
    KnownKey{"rope.scaling.type", Kind::kText, Need::kNever},
    KnownKey{"rope.scaling.factor", Kind::kNumber, Need::kYarn},
    KnownKey{"rope.scaling.original_context_length", Kind::kInteger, Need::kYarn},
    KnownKey{"rope.scaling.yarn_log_multiplier", Kind::kNumber, Need::kNever},
    KnownKey{"rope.scaling.yarn_attn_factor", Kind::kNumber, Need::kNever},
    KnownKey{"rope.scaling.yarn_beta_fast", Kind::kNumber, Need::kNever},
    KnownKey{"rope.scaling.yarn_beta_slow", Kind::kNumber, Need::kNever},
    KnownKey{"leading_dense_block_count", Kind::kInteger, Need::kAlways},
    KnownKey{"vocab_size", Kind::kInteger, Need::kNever},
    KnownKey{"expert_count", Kind::kInteger, Need::kNever},
    KnownKey{"expert_used_count", Kind::kInteger, Need::kExperts},
    KnownKey{"expert_feed_forward_length", Kind::kInteger, Need::kAlways},
    KnownKey{"expert_shared_count", Kind::kInteger, Need::kAlways},
    KnownKey{"expert_weights_scale", Kind::kNumber, Need::kExperts},
    KnownKey{"expert_weights_norm", Kind::kBool, Need::kNever},
    KnownKey{"expert_gating_func", Kind::kInteger, Need::kNever},
    KnownKey{"expert_group_count", Kind::kInteger, Need::kNever},
    KnownKey{"expert_group_used_count", Kind::kInteger, Need::kNever},
};

bool is_kind(const GgufKey& key, Kind kind) {
  switch (kind) {
    case Kind::kInteger:
      return key.is_integer();
    case Kind::kNumber:
      return key.is_number();
    case Kind::kBool:
      return key.type == GgufValueType::kBool;
    default:
      return key.type == GgufValueType::kString;
  }
}
const char* kind_name(Kind kind) {
  constexpr std::array<const char*, 4> kNames{"an integer", "a number", "a bool", "a string"};
  return kNames[static_cast<std::size_t>(kind)];
}

// "attn_q_a.weight" of "blk.3.attn_q_a.weight", and the 3; the whole name and -1 for others.
std::pair<std::int64_t, std::string> split_block(const std::string& name) {
  if (!name.starts_with("blk.")) return {-1, name};
  const std::size_t dot = name.find('.', 4);
  std::int64_t block = 0;
  for (std::size_t i = 4; i < std::min(dot, name.size()); ++i) {
    if (name[i] < '0' || name[i] > '9' || block > 1'000'000) return {-1, name};
    block = block * 10 + (name[i] - '0');
  }
  if (dot == std::string::npos || dot == 4) return {-1, name};
  return {block, name.substr(dot + 1)};
}

class GgufArchitecture {
 public:
  GgufArchitecture(const GgufTarget& target, Findings& findings)
      : target_(target), findings_(findings), first_(*target.first()) {
    file_ = first_.path().string();
    mla_ = find("blk.0.attn_kv_b.weight") != nullptr ? GgufMla::kUnsplit : GgufMla::kSplit;
  }

  std::optional<ModelConfig> run() {
    if (!architecture() || !keys()) return std::nullopt;
    const auto config = make_config();
    if (config) {
      derived(*config);
      yarn(*config);
      tensors(*config);
    }
    storage();
    alike_.flush(findings_);
    return config;
  }

 private:
  const GgufTensor* find(std::string_view name) const {
    return find_gguf_tensor(target_.entries(), name).tensor;
  }
  void add(const char* rule, const std::string& key, const std::string& what,
           const std::string& found = "", const std::string& expected = "") {
    findings_.add(rule, {.file = file_,
                         .key = key,
                         .message = fmt::format("{}: {}", file_, what),
                         .found = found,
                         .expected = expected});
  }

  bool text_is(const char* name, std::string_view wanted, bool required) {
    const GgufKey* key = first_.find_key(name);
    if (key == nullptr && !required) return true;
    const bool text = key != nullptr && key->type == GgufValueType::kString;
    if (text && key->text() == wanted) return true;
    const std::string found = key == nullptr ? "absent" : key->summary();
    add("gguf-architecture", name, fmt::format("{} is {}, needed is {}", name, found, wanted),
        found, std::string(wanted));
    return false;
  }
  bool architecture() {
    const bool model = text_is("general.type", "model", false);
    return text_is("general.architecture", "deepseek2", true) && model;
  }

  // Presence and types.
  bool keys() {
    const auto key_of = [&](const char* name) {
      return first_.find_key(std::string(kPrefix) + name);
    };
    const GgufKey* experts = key_of("expert_count");
    const GgufKey* scaling = key_of("rope.scaling.type");
    const bool moe = gguf_integer(experts).value_or(0) > 0;
    const bool yarn =
        scaling != nullptr && scaling->type == GgufValueType::kString && scaling->text() == "yarn";
    bool good = true;
    for (const KnownKey& known : kKeys) {
      const std::string name = std::string(kPrefix) + known.name;
      const GgufKey* key = key_of(known.name);
      const bool needed =
          known.need == Need::kAlways || (known.need == Need::kSplit && mla_ == GgufMla::kSplit) ||
          (known.need == Need::kExperts && moe) || (known.need == Need::kYarn && yarn);
      if (key == nullptr) {
        if (needed) {
          add("gguf-key-missing", name, fmt::format("the key {} is absent", name), "absent");
          good = false;
        }
      } else if (!is_kind(*key, known.kind)) {
        const std::string found = gguf_value_type_name(key->type);
        add("gguf-key-type", name,
            fmt::format("key {} is of type {}, needed is {}", name, found, kind_name(known.kind)),
            found, kind_name(known.kind));
        good = false;
      }
    }
    return good;
  }

  void bad_value(const Error& error) {
    const std::string message = error.what();
    std::string key;
    const std::size_t at = message.find(kPrefix);
    if (at != std::string::npos) key = message.substr(at, message.find_first_of(" ,)", at) - at);
    findings_.add(
        "gguf-key-value",
        {.file = file_,
         .key = key,
         .message = message.starts_with(file_) ? message : fmt::format("{}: {}", file_, message),
         .fix = error.hint()});
  }

  std::optional<ModelConfig> make_config() {
    // Each block has some ten tensors: a count beyond all of them is not followed.
    const std::string count = std::string(kPrefix) + "block_count";
    const GgufKey& blocks = *first_.find_key(count);
    const std::int64_t layers = gguf_integer(&blocks).value_or(INT64_MAX);
    if (target_.complete() && layers > static_cast<std::int64_t>(target_.entries().size())) {
      add("gguf-key-value", count,
          fmt::format("key {} is {}, the file has {} tensors", count, blocks.summary(),
                      target_.entries().size()),
          blocks.summary());
      return std::nullopt;
    }
    bool whole = true;
    for (const char* name : {"token_embd.weight", "blk.0.attn_kv_a_norm.weight"}) {
      const GgufTensor* tensor = find(name);
      if (tensor != nullptr && !tensor->shape.empty()) continue;
      whole = false;
      if (target_.complete()) missing(name);
    }
    if (!whole || layers > kMostBlocks) return std::nullopt;
    try {
      const GgufFacts facts = gguf_facts(target_.entries(), file_);
      std::vector<std::string> guesses;
      const auto json = config_from_gguf(GgufFileSettings(first_), facts, file_, guesses);
      return parse_model_config(nlohmann::json(json), file_);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      bad_value(error);
      return std::nullopt;
    }
  }

  static bool same(const GgufKey& key, const GgufSetting& wanted) {
    if (const auto* integer = std::get_if<std::int64_t>(&wanted)) {
      return gguf_integer(&key) == *integer;
    }
    if (const auto* number = std::get_if<double>(&wanted)) {
      // Stored as f32.
      return key.is_number() && std::fabs(key.number() - *number) <= 1e-5 * std::fabs(*number);
    }
    if (const auto* flag = std::get_if<bool>(&wanted)) {
      return key.type == GgufValueType::kBool && key.boolean() == *flag;
    }
    return key.type == GgufValueType::kString && key.text() == std::get<std::string>(wanted);
  }
  static std::string shown(const GgufSetting& value) {
    if (const auto* integer = std::get_if<std::int64_t>(&value)) return std::to_string(*integer);
    if (const auto* number = std::get_if<double>(&value)) return fmt::format("{:g}", *number);
    if (const auto* flag = std::get_if<bool>(&value)) return *flag ? "true" : "false";
    return std::get<std::string>(value);
  }

  // Keys whose values follow from others.
  void derived(const ModelConfig& config) {
    for (const GgufMetadata& wanted : gguf_metadata(config, mla_)) {
      const GgufKey* key = first_.find_key(wanted.key);
      const std::string expected = shown(wanted.value);
      if (key == nullptr) {
        add("gguf-key-default", wanted.key, fmt::format("the key {} is absent", wanted.key),
            "absent", expected);
      } else if (!same(*key, wanted.value)) {
        add("gguf-key-contradicts", wanted.key,
            fmt::format("key {} is {}, by the other keys it is {}", wanted.key, key->summary(),
                        expected),
            key->summary(), expected);
      }
    }
    if (mla_ == GgufMla::kUnsplit) {
      add("gguf-legacy-mla", "", "attn_kv_b is one tensor, not split into keys and values");
    }
  }

  void yarn(const ModelConfig& config) {
    if (!config.yarn) return;
    const std::string multiplier = std::string(kPrefix) + "rope.scaling.yarn_log_multiplier";
    const std::string attention = std::string(kPrefix) + "rope.scaling.yarn_attn_factor";
    if (first_.find_key(multiplier) == nullptr && first_.find_key(attention) == nullptr) {
      add("gguf-yarn", multiplier,
          fmt::format("rope.scaling.type is yarn, {} is absent", multiplier), "absent",
          "0.1 * mscale_all_dim");
    }
    const double length =
        config.yarn->factor * static_cast<double>(config.yarn->original_max_position);
    if (std::fabs(length - static_cast<double>(config.max_position_embeddings)) > 0.5) {
      add("gguf-yarn", std::string(kPrefix) + "rope.scaling.factor",
          fmt::format("the YaRN factor {:g} times the original length {} is {:g}, but "
                      "context_length is {}",
                      config.yarn->factor, config.yarn->original_max_position, length,
                      config.max_position_embeddings),
          fmt::format("{:g}", length), std::to_string(config.max_position_embeddings));
    }
  }

  Finding about(const GgufModel::Entry& entry, const std::string& what) const {
    const std::string file = entry.file->path().string();
    return {.file = file,
            .tensor = entry.tensor->name,
            .message = fmt::format("{}: tensor {} {}", file, quote_text(entry.tensor->name), what)};
  }
  void missing(const std::string& name) {
    alike_.add("gguf-missing-tensor", split_block(name).second, "", "", [&] {
      return Finding{.file = file_,
                     .tensor = name,
                     .message = fmt::format("{}: tensor {} is missing", file_, quote_text(name))};
    });
  }

  void tensors(const ModelConfig& config) {
    std::set<std::string_view> known;
    const std::vector<GgufTensorPlan> plan = gguf_tensor_plan(config, mla_);
    for (const GgufTensorPlan& wanted : plan) {
      known.insert(wanted.name);
      const GgufModel::Entry entry = find_gguf_tensor(target_.entries(), wanted.name);
      if (entry.tensor == nullptr) {
        if (target_.complete()) missing(wanted.name);
        continue;
      }
      const std::string kind = split_block(wanted.name).second;
      if (entry.tensor->shape != wanted.shape) {
        const std::string found = shape_text(entry.tensor->shape);
        const std::string expected = shape_text(wanted.shape);
        alike_.add("gguf-shape", kind, found, expected, [&] {
          return about(entry, fmt::format("has shape {}, the keys demand {} (slowest first)", found,
                                          expected));
        });
      }
      if (wanted.always_f32 && !entry.tensor->is(GgmlType::kF32)) {
        const std::string found = entry.tensor->type_name();
        alike_.add("gguf-must-be-f32", "", found, "F32",
                   [&] { return about(entry, fmt::format("is {}, needed is F32", found)); });
      }
    }
    for (const GgufModel::Entry& entry : target_.entries()) {
      const std::string& name = entry.tensor->name;
      if (known.count(name) > 0 || is_gguf_extra(name, mla_)) continue;
      const auto [block, stem] = split_block(name);
      const bool beyond = block >= config.num_hidden_layers;
      const std::string what = beyond ? fmt::format("is of a block beyond the {} of block_count",
                                                    config.num_hidden_layers)
                                      : std::string("is none that the keys demand");
      alike_.add("gguf-unknown-tensor", beyond ? "" : stem, "", "",
                 [&] { return about(entry, what); });
    }
  }

  // What the file says of its own types.
  void storage() {
    std::map<std::uint32_t, std::uint64_t> bytes;
    const GgufTensor* quantised = nullptr;
    for (const GgufModel::Entry& entry : target_.entries()) {
      bytes[entry.tensor->type] += entry.tensor->bytes();
      const bool blocks = ggml_type_info(entry.tensor->type)->block_values > 1;
      if (blocks && quantised == nullptr) quantised = entry.tensor;
    }
    if (quantised != nullptr && first_.find_key("general.quantization_version") == nullptr) {
      add("gguf-quantised-without-version", "general.quantization_version",
          fmt::format("tensor {} is {}, and general.quantization_version is absent",
                      quote_text(quantised->name), quantised->type_name()),
          "absent", "2");
    }
    const GgufKey* said = first_.find_key("general.file_type");
    if (said == nullptr || bytes.empty() || !target_.complete()) return;
    const auto most =
        std::max_element(bytes.begin(), bytes.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    // Mixtures of K-quants have numbers of their own, which follow from no single type.
    static const std::map<std::uint32_t, std::int64_t> kFileTypes{{0, 0}, {1, 1}, {8, 7}, {30, 32}};
    const auto expected = kFileTypes.find(most->first);
    if (expected == kFileTypes.end()) return;
    if (gguf_integer(said) == expected->second) return;
    add("gguf-file-type", "general.file_type",
        fmt::format("general.file_type is {}, most bytes are {}, which is {}", said->summary(),
                    ggml_type_info(most->first)->name, expected->second),
        said->summary(), std::to_string(expected->second));
  }

  const GgufTarget& target_;
  Findings& findings_;
  const GgufFile& first_;
  std::string file_;
  GgufMla mla_ = GgufMla::kSplit;
  Alike alike_;
};

}  // namespace

std::optional<ModelConfig> check_gguf_architecture(const GgufTarget& target, Findings& findings) {
  return GgufArchitecture(target, findings).run();
}

std::optional<ModelConfig> check_gguf(const GgufTarget& target, const DeepOptions* deep,
                                      Findings& findings) {
  std::optional<ModelConfig> config;
  if (target.first() != nullptr) {
    config = check_gguf_architecture(target, findings);
    check_gguf_vocabulary(target, findings);
  }
  if (deep != nullptr) check_gguf_values(target, *deep, findings);
  return config;
}

}  // namespace ds::check
