#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/check/checks.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

constexpr const char* kFile = "tokenizer.json";
constexpr const char* kSettings = "tokenizer_config.json";
constexpr const char* kGeneration = "generation_config.json";

std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 120);
}
bool given(const json& object, const char* key) {
  return object.contains(key) && !object.at(key).is_null();
}

const std::vector<std::string>& setting_keys() {
  static const std::vector<std::string> kKeys{"add_bos_token",
                                              "add_eos_token",
                                              "add_prefix_space",
                                              "added_tokens_decoder",
                                              "additional_special_tokens",
                                              "auto_map",
                                              "backend",
                                              "bos_token",
                                              "chat_template",
                                              "clean_up_tokenization_spaces",
                                              "cls_token",
                                              "eos_token",
                                              "errors",
                                              "extra_special_tokens",
                                              "legacy",
                                              "mask_token",
                                              "model_input_names",
                                              "model_max_length",
                                              "pad_token",
                                              "padding_side",
                                              "sep_token",
                                              "sp_model_kwargs",
                                              "spaces_between_special_tokens",
                                              "split_special_tokens",
                                              "tokenizer_class",
                                              "tokenizer_file",
                                              "truncation_side",
                                              "unk_token",
                                              "use_default_system_prompt"};
  return kKeys;
}
const std::vector<std::string>& generation_keys() {
  static const std::vector<std::string> kKeys{
      "bos_token_id", "decoder_start_token_id", "do_sample",   "eos_token_id",
      "max_length",   "max_new_tokens",         "min_p",       "num_beams",
      "pad_token_id", "repetition_penalty",     "temperature", "top_k",
      "top_p",        "transformers_version",   "use_cache"};
  return kKeys;
}

class FieldCheck {
 public:
  FieldCheck(const fs::path& folder, const ModelConfig* model, Findings& findings)
      : folder_(folder), model_(model), findings_(findings) {}

  void run() {
    const json tokenizer = object(kFile);
    const json settings = object(kSettings);
    const json generation = object(kGeneration);
    if (generation.is_object()) {
      spelling(kGeneration, generation, generation_keys());
      ids(generation);
    }
    if (!tokenizer.is_object()) return;
    file(tokenizer);
    std::error_code ignored;
    if (fs::exists(folder_ / kSettings, ignored) &&
        fs::file_size(folder_ / kSettings, ignored) == 0) {
      add("tokenizer-config-syntax", kSettings, "", "the file is empty");
    }
    if (!settings.is_object()) return;
    spelling(kSettings, settings, setting_keys());
    special_tokens(settings, tokenizer);
    added_tokens(settings, tokenizer);
    values(settings);
  }

 private:
  std::string path(const char* name) const { return (folder_ / name).string(); }
  void add(const char* rule, const char* file, const std::string& key, const std::string& what,
           const std::string& found = "", const std::string& expected = "") {
    findings_.add(rule, {.file = path(file),
                         .key = key,
                         .message = fmt::format("{}: {}", path(file), what),
                         .found = found,
                         .expected = expected});
  }
  // `key` is `found` and should be `expected`.
  void wrong(const char* rule, const char* file, const std::string& key, const json& found,
             const std::string& expected) {
    add(rule, file, key, fmt::format("{} is {}, needed is {}", key, dump(found), expected),
        dump(found), expected);
  }
  // An object of the folder; null when there is none: other rules say so.
  json object(const char* name) const {
    std::error_code ignored;
    if (!fs::exists(folder_ / name, ignored)) return nullptr;
    try {
      json value = parse_json_file(folder_ / name);
      return value.is_object() ? value : json(nullptr);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      return nullptr;
    }
  }

  void spelling(const char* file, const json& object, const std::vector<std::string>& known) {
    for (const auto& [key, value] : object.items()) {
      if (std::find(known.begin(), known.end(), key) != known.end() || key.starts_with("_")) {
        continue;
      }
      const std::string nearest = nearest_name(key, known);
      if (nearest.empty() || object.contains(nearest)) continue;
      add("misspelt-setting", file, key,
          fmt::format("the key {} is unknown; did you mean {}?", quote_text(key),
                      quote_text(nearest)),
          key, nearest);
    }
  }

  void ids(const json& generation) {
    for (const char* key : {"bos_token_id", "eos_token_id", "pad_token_id"}) {
      if (!given(generation, key)) continue;
      const json& value = generation.at(key);
      const json list = value.is_array() ? value : json::array({value});
      for (const json& id : list) {
        const bool sound =
            id.is_number_integer() && id.get<double>() >= 0 &&
            (model_ == nullptr || id.get<double>() < static_cast<double>(model_->vocab_size));
        if (sound || id == -1) continue;
        wrong("generation-values", kGeneration, key, value, "a token id below vocab_size");
        break;
      }
    }
  }

  // What the tokenizers library refuses, or acts on, and encoding here does not.
  void file(const json& tokenizer) {
    if (given(tokenizer, "version") && tokenizer.at("version") != "1.0") {
      wrong("tokenizer-syntax", kFile, "version", tokenizer.at("version"), "\"1.0\"");
    }
    for (const char* key : {"truncation", "padding"}) {
      if (!given(tokenizer, key)) continue;
      wrong("tokenizer-truncates", kFile, key, tokenizer.at(key), "null");
    }
    if (given(tokenizer, "post_processor")) post_processor(tokenizer.at("post_processor"));
    if (!tokenizer.contains("added_tokens") || !tokenizer.at("added_tokens").is_array()) return;
    const json& added = tokenizer.at("added_tokens");
    for (std::size_t i = 0; i < added.size(); ++i) {
      if (!added[i].is_object() || !added[i].contains("content")) continue;
      for (const char* flag : {"single_word", "lstrip", "rstrip", "normalized", "special"}) {
        if (given(added[i], flag)) continue;
        add("tokenizer-syntax", kFile, fmt::format("added_tokens.{}.{}", i, flag),
            fmt::format("added_tokens.{} has no {}, which the tokenizers library needs", i, flag),
            "absent", "true or false");
      }
    }
  }

  void post_processor(const json& step) {
    constexpr std::array<std::string_view, 5> kTypes{"ByteLevel", "TemplateProcessing", "Sequence",
                                                     "BertProcessing", "RobertaProcessing"};
    const json type = step.is_object() && step.contains("type") ? step.at("type") : json();
    const std::string name = type.is_string() ? type.get<std::string>() : "";
    if (std::find(kTypes.begin(), kTypes.end(), name) != kTypes.end()) return;
    add("tokenizer-syntax", kFile, step.is_object() ? "post_processor.type" : "post_processor",
        fmt::format("post_processor is {}, which no loader knows", dump(step)), dump(step),
        "ByteLevel");
  }

  static std::string text_of(const json& token) {
    if (token.is_string()) return token.get<std::string>();
    const bool content =
        token.is_object() && token.contains("content") && token.at("content").is_string();
    return content ? token.at("content").get<std::string>() : "";
  }

  // bos_token, eos_token, pad_token.
  void special_tokens(const json& settings, const json& tokenizer) {
    if (!tokenizer.contains("added_tokens") || !tokenizer.at("added_tokens").is_array()) return;
    std::set<std::string> added;
    for (const json& token : tokenizer.at("added_tokens")) added.insert(text_of(token));
    const json model = tokenizer.contains("model") ? tokenizer.at("model") : json();
    for (const std::string key : {"bos_token", "eos_token", "pad_token"}) {
      if (!given(settings, key.c_str())) {
        add("special-token-unnamed", kSettings, key, fmt::format("{} is not named", key), "absent");
        continue;
      }
      const json& token = settings.at(key);
      const std::string text = text_of(token);
      const bool in_vocabulary = model.is_object() && model.contains("vocab") &&
                                 model.at("vocab").is_object() && model.at("vocab").contains(text);
      if (!text.empty() && in_vocabulary && added.count(text) == 0) {
        add("ordinary-special-token", kSettings, key,
            fmt::format("{} is {}, which is no added token of tokenizer.json", key,
                        quote_text(text)),
            text);
      }
      if (!token.is_object()) continue;
      if (!token.contains("__type") || token.at("__type") != "AddedToken") {
        wrong("tokenizer-config-syntax", kSettings, key + ".__type",
              token.contains("__type") ? token.at("__type") : json(), "\"AddedToken\"");
      }
      for (const std::string flag : {"lstrip", "rstrip", "single_word"}) {
        if (!token.contains(flag) || token.at(flag) == false) continue;
        wrong("control-flag", kSettings, fmt::format("{}.{}", key, flag), token.at(flag), "false");
      }
    }
  }

  // transformers adds a token again, with the flags that stand here.
  void added_tokens(const json& settings, const json& tokenizer) {
    const auto array = tokenizer.find("added_tokens");
    const auto decoder = settings.find("added_tokens_decoder");
    if (array == tokenizer.end() || decoder == settings.end()) return;
    if (!array->is_array() || !decoder->is_object()) return;
    std::map<std::string, const json*> known;
    for (const json& token : *array) known[text_of(token)] = &token;
    for (const auto& [id, token] : decoder->items()) {
      const auto at = known.find(text_of(token));
      if (at == known.end() || text_of(token).empty()) continue;
      for (const std::string flag : {"lstrip", "rstrip", "single_word", "special"}) {
        if (!token.contains(flag) || !at->second->contains(flag)) continue;
        const json& other = at->second->at(flag);
        if (!other.is_boolean() || token.at(flag) == other) continue;
        add("added-tokens-disagree", kSettings, fmt::format("added_tokens_decoder.{}.{}", id, flag),
            fmt::format("added_tokens_decoder.{}.{} is {}, in tokenizer.json {}", id, flag,
                        dump(token.at(flag)), dump(other)),
            dump(token.at(flag)), dump(other));
      }
    }
  }

  void values(const json& settings) {
    const char* clean = "clean_up_tokenization_spaces";
    if (given(settings, clean) && settings.at(clean) != false) {
      wrong("cleans-up-spaces", kSettings, clean, settings.at(clean), "false");
    }
    if (given(settings, "tokenizer_class") && !settings.contains("auto_map")) {
      constexpr std::array<std::string_view, 8> kClasses{
          "LlamaTokenizer", "LlamaTokenizerFast", "PreTrainedTokenizerFast", "TokenizersBackend",
          "GPT2Tokenizer",  "GPT2TokenizerFast",  "Qwen2Tokenizer",          "Qwen2TokenizerFast"};
      const json& type = settings.at("tokenizer_class");
      if (std::find(kClasses.begin(), kClasses.end(),
                    type.is_string() ? type.get<std::string>() : "") == kClasses.end()) {
        wrong("tokenizer-class-unknown", kSettings, "tokenizer_class", type,
              "\"PreTrainedTokenizerFast\"");
      }
    }
    if (given(settings, "model_max_length")) max_length(settings.at("model_max_length"));
  }

  void max_length(const json& value) {
    const double length = value.is_number() ? value.get<double>() : 0.0;
    if (!(length >= 1.0)) {
      wrong("model-max-length", kSettings, "model_max_length", value, "a positive number");
      return;
    }
    // transformers writes 1e30 for "none".
    if (model_ == nullptr || length >= 1e18 ||
        length <= static_cast<double>(model_->max_position_embeddings)) {
      return;
    }
    add("model-max-length", kSettings, "model_max_length",
        fmt::format("model_max_length is {:.0f}, max_position_embeddings is {}", length,
                    model_->max_position_embeddings),
        fmt::format("{:.0f}", length), std::to_string(model_->max_position_embeddings));
  }

  fs::path folder_;
  const ModelConfig* model_;
  Findings& findings_;
};

}  // namespace

void check_tokenizer_fields(const fs::path& folder, const ModelConfig* model, Findings& findings) {
  FieldCheck(folder, model, findings).run();
}

}  // namespace ds::check
