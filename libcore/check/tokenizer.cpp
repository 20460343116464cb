#include "libcore/text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <fstream>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/check/checks.h"
#include "libcore/check/message_key.h"
#include "libcore/check/near_miss.h"
#include "libcore/check/template_check.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

bool there(const fs::path& path) {
  std::error_code ignored;
  return fs::exists(path, ignored);
}
bool has(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}
std::string read_file(const fs::path& path) {
  const MappedFile file(path);
  return {reinterpret_cast<const char*>(file.data()), file.size()};
}
std::string dump(const json& value) {
  return value.dump(-1, ' ', false, json::error_handler_t::replace).substr(0, 120);
}

// The ids of DeepSeek-V3's control tokens; V3.1 and R1 put think and search in the place of the
// last placeholders.
struct KnownToken {
  std::string_view text;
  std::int32_t id;
};
constexpr std::array kV3Tokens{
    KnownToken{"<\uff5cbegin\u2581of\u2581sentence\uff5c>", 0},
    KnownToken{"<\uff5cend\u2581of\u2581sentence\uff5c>", 1},
    KnownToken{"<\uff5c\u2581pad\u2581\uff5c>", 2},
    KnownToken{"<\uff5cfim\u2581hole\uff5c>", 128800},
    KnownToken{"<\uff5cfim\u2581begin\uff5c>", 128801},
    KnownToken{"<\uff5cfim\u2581end\uff5c>", 128802},
    KnownToken{"<\uff5cUser\uff5c>", 128803},
    KnownToken{"<\uff5cAssistant\uff5c>", 128804},
    KnownToken{"<|EOT|>", 128805},
    KnownToken{"<\uff5ctool\u2581calls\u2581begin\uff5c>", 128806},
    KnownToken{"<\uff5ctool\u2581calls\u2581end\uff5c>", 128807},
    KnownToken{"<\uff5ctool\u2581call\u2581begin\uff5c>", 128808},
    KnownToken{"<\uff5ctool\u2581call\u2581end\uff5c>", 128809},
    KnownToken{"<\uff5ctool\u2581outputs\u2581begin\uff5c>", 128810},
    KnownToken{"<\uff5ctool\u2581outputs\u2581end\uff5c>", 128811},
    KnownToken{"<\uff5ctool\u2581output\u2581begin\uff5c>", 128812},
    KnownToken{"<\uff5ctool\u2581output\u2581end\uff5c>", 128813},
    KnownToken{"<\uff5ctool\u2581sep\uff5c>", 128814},
};
constexpr std::array kOptionalTokens{
    KnownToken{"<\uff5csearch\u2581begin\uff5c>", 128796},
    KnownToken{"<\uff5csearch\u2581end\uff5c>", 128797},
    KnownToken{"<think>", 128798},
    KnownToken{"</think>", 128799},
};
constexpr std::int64_t kV3Size = 128815;
constexpr std::int32_t kV4Think = 128821;

// Texts whose ids in DeepSeek-V3's tokenizer are known.
struct KnownEncoding {
  const char* text;
  std::vector<std::int32_t> ids;
};
const std::vector<KnownEncoding>& known_encodings() {
  static const std::vector<KnownEncoding> kKnown{{"\n\n\n", {6328}},
                                                 {"Hello, world!", {19923, 14, 2058, 3}},
                                                 {"    Hello", {361, 45948}},
                                                 {"3333", {11722, 21}},
                                                 {"!!!!!!", {27656, 6909}},
                                                 {"' era", {9, 9861}},
                                                 {"\u00c4pfel", {38857, 33015, 317}}};
  return kKnown;
}

class TokenizerCheck {
 public:
  TokenizerCheck(const fs::path& folder, const json* config, const ModelConfig* model,
                 Findings& findings)
      : folder_(folder), config_(config), model_(model), findings_(findings) {}

  void run() {
    generation();
    check_tokenizer_fields(folder_, model_, findings_);
    if (!there(folder_ / "tokenizer.json")) {
      without_file();
      return;
    }
    if (!there(folder_ / "tokenizer_config.json")) {
      add("tokenizer-config-missing", "tokenizer_config.json", "",
          "there is a tokenizer.json and no such file");
    }
    std::optional<Tokenizer> tokenizer = load();
    if (!tokenizer) return;
    settings(*tokenizer);
    sizes(*tokenizer);
    ids(*tokenizer);
    spelling(*tokenizer);
    v3(*tokenizer);
    // Without its settings the tokenizer has no template that stands there.
    if (settings_read_ || there(folder_ / "chat_template.jinja")) {
      check_chat_templates(folder_, *tokenizer, object("tokenizer_config.json"), model_, findings_);
    }
  }

 private:
  std::string path(const std::string& name) const { return (folder_ / name).string(); }
  void add(const char* rule, const std::string& file, const std::string& key,
           const std::string& what, const std::string& found = "",
           const std::string& expected = "") {
    findings_.add(rule, {.file = path(file),
                         .key = key,
                         .message = fmt::format("{}: {}", path(file), what),
                         .found = found,
                         .expected = expected});
  }

  void without_file() {
    for (const char* other : {"tiktoken.model", "tokenizer.model"}) {
      if (!there(folder_ / other)) continue;
      add("tokenizer-kind", other, "", "a tokenizer of this kind is not checked");
      return;
    }
    if (there(folder_ / "tokenizer_config.json")) {
      add("tokenizer-missing", "tokenizer.json", "",
          "there is a tokenizer_config.json and no such file");
    }
  }

  // The tokenizer, without its settings where those are wrong.
  std::optional<Tokenizer> load() {
    const std::string name = path("tokenizer.json");
    const std::string text = read_file(folder_ / "tokenizer.json");
    std::optional<Tokenizer> tokenizer;
    try {
      tokenizer = Tokenizer::parse(text, name, "");
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      const bool kind = has(error.what(), "tokenizer kind not supported");
      findings_.add(kind ? "tokenizer-kind" : "tokenizer-syntax",
                    {.file = name, .message = error.what(), .fix = error.hint()});
      return std::nullopt;
    }
    try {
      return Tokenizer::load(folder_);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      const std::string_view message = error.what();
      const char* rule = has(message, "is not in tokenizer.json")   ? "special-token-missing"
                         : has(message, "in tokenizer.json its id") ? "added-tokens-disagree"
                                                                    : "tokenizer-config-syntax";
      findings_.add(rule, {.file = path("tokenizer_config.json"),
                           .key = key_in_message(message, path("tokenizer_config.json")),
                           .message = std::string(message),
                           .fix = error.hint()});
      settings_read_ = false;
    }
    return tokenizer;
  }

  // A JSON object of the folder; null when it is not there or is no object.
  json object(const char* name) const {
    if (!there(folder_ / name)) return nullptr;
    try {
      json value = parse_json_file(folder_ / name);
      return value.is_object() ? value : json(nullptr);
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) throw;
      return nullptr;
    }
  }
  static std::string token_text(const json& settings, const char* key) {
    if (!settings.is_object() || !settings.contains(key)) return "";
    const json& value = settings.at(key);
    if (value.is_string()) return value;
    if (value.is_object() && value.contains("content") && value.at("content").is_string()) {
      return value.at("content");
    }
    return "";
  }

  void settings(const Tokenizer& tokenizer) {
    const char* file = "tokenizer_config.json";
    const json settings = object(file);
    if (!settings.is_object()) return;
    const std::string type = settings.value("tokenizer_class", json()).is_string()
                                 ? settings.at("tokenizer_class").get<std::string>()
                                 : "";
    if (type == "LlamaTokenizer" || type == "LlamaTokenizerFast") {
      add("tokenizer-class", file, "tokenizer_class",
          fmt::format("tokenizer_class is {}, tokenizer.json is byte-level BPE", type), type);
    }
    if (settings.value("add_eos_token", json()) == true) {
      add("adds-eos", file, "add_eos_token", "add_eos_token is true", "true", "false");
    }
    const std::string pad = token_text(settings, "pad_token");
    if (!pad.empty() && pad == token_text(settings, "eos_token")) {
      add("pad-is-eos", file, "pad_token", fmt::format("pad_token is eos_token ({})", pad), pad);
    }
    if (tokenizer.adds_bos() && has(tokenizer.chat_template(), "bos_token")) {
      add("bos-added-twice", file, "add_bos_token",
          "add_bos_token is true, and the chat template begins with bos_token", "true");
    }
    const json map = object("special_tokens_map.json");
    for (const char* key : {"bos_token", "eos_token", "pad_token"}) {
      const std::string mine = token_text(settings, key);
      const std::string theirs = token_text(map, key);
      if (mine.empty() || theirs.empty() || mine == theirs) continue;
      add("special-tokens-map", "special_tokens_map.json", key,
          fmt::format("{} is {}, tokenizer_config.json says {}", key, quote_text(theirs),
                      quote_text(mine)),
          theirs, mine);
    }
  }

  void sizes(const Tokenizer& tokenizer) {
    if (model_ == nullptr) return;
    const std::int64_t size = tokenizer.vocab_size();
    if (size > model_->vocab_size) {
      add("token-beyond-embedding", "tokenizer.json", "",
          fmt::format("the largest id is {}, vocab_size is {}", size - 1, model_->vocab_size),
          std::to_string(size - 1), fmt::format("below {}", model_->vocab_size));
    } else if (size * 10 < model_->vocab_size * 9) {
      add("other-tokenizer", "tokenizer.json", "",
          fmt::format("the tokenizer has {} tokens, the model's vocabulary {} rows",
                      format_count(size), format_count(model_->vocab_size)),
          std::to_string(size), std::to_string(model_->vocab_size));
    }
  }

  void ids(const Tokenizer& tokenizer) {
    if (model_ == nullptr || config_ == nullptr) return;
    const auto compare = [&](const char* rule, const char* key, std::int32_t token,
                             const std::vector<std::int64_t>& given) {
      if (token < 0 || !config_->contains(key) || config_->at(key).is_null()) return;
      if (std::find(given.begin(), given.end(), token) != given.end()) return;
      findings_.add(
          rule, {.file = path("config.json"),
                 .key = key,
                 .message = fmt::format("{}: {} is {}, the tokenizer's is {}", path("config.json"),
                                        key, dump(config_->at(key)), token),
                 .found = dump(config_->at(key)),
                 .expected = std::to_string(token)});
    };
    compare("bos-id", "bos_token_id", tokenizer.bos_id(), {model_->bos_token_id});
    compare("eos-id", "eos_token_id", tokenizer.eos_id(), model_->eos_token_ids);
    if (model_->pad_token_id) {
      compare("pad-id", "pad_token_id", tokenizer.pad_id(), {*model_->pad_token_id});
    }
  }

  void spelling(const Tokenizer& tokenizer) {
    const std::set<std::string> special{"<\uff5cbegin\u2581of\u2581sentence\uff5c>",
                                        "<\uff5cend\u2581of\u2581sentence\uff5c>",
                                        "<\uff5c\u2581pad\u2581\uff5c>", "<|EOT|>"};
    const std::set<std::string> control(control_tokens().begin(), control_tokens().end());
    for (const AddedToken& token : tokenizer.added_tokens()) {
      for (const NearMiss& miss : near_misses(token.text, 1)) {
        if (miss.found != token.text) continue;
        add("near-miss-token", "tokenizer.json", fmt::format("added_tokens {}", token.id),
            fmt::format("the added token {} is {}, the control token is {}", token.id,
                        quote_text(token.text), quote_text(miss.meant)),
            token.text, miss.meant);
      }
      if (control.count(token.text) > 0 && (token.lstrip || token.rstrip)) {
        add("control-flag", "tokenizer.json", fmt::format("added_tokens {}", token.id),
            fmt::format("the token {} takes the white space beside it (lstrip {}, rstrip {})",
                        quote_text(token.text), token.lstrip, token.rstrip),
            "true", "false");
      }
      if (control.count(token.text) == 0 || (special.count(token.text) > 0) == token.special) {
        continue;
      }
      add("control-flag", "tokenizer.json", fmt::format("added_tokens {}", token.id),
          fmt::format("the token {} has special {}, published files have {}",
                      quote_text(token.text), token.special, !token.special),
          token.special ? "true" : "false", token.special ? "false" : "true");
    }
  }

  void v3(const Tokenizer& tokenizer) {
    const std::int32_t think = tokenizer.id_of("<think>");
    if (think == kV4Think) {
      add("v4-tokenizer", "tokenizer.json", "<think>",
          fmt::format("<think> has id {}, V3.1 models have it at 128798", think),
          std::to_string(think), "128798");
      return;
    }
    const bool size = tokenizer.vocab_size() == kV3Size;
    if (!size) return;
    const auto compare = [&](const KnownToken& known, bool required) {
      const std::int32_t id = tokenizer.id_of(known.text);
      if (id == known.id || (!required && id < 0)) return;
      add("special-ids", "tokenizer.json", std::string(known.text),
          id < 0
              ? fmt::format("the control token {} is missing, its id is {}", known.text, known.id)
              : fmt::format("the control token {} has id {}, published is {}", known.text, id,
                            known.id),
          id < 0 ? "absent" : std::to_string(id), std::to_string(known.id));
    };
    for (const KnownToken& known : kV3Tokens) compare(known, true);
    for (const KnownToken& known : kOptionalTokens) compare(known, false);
    for (const KnownEncoding& known : known_encodings()) {
      const std::vector<std::int32_t> got = tokenizer.encode(known.text);
      if (got == known.ids) continue;
      add("encodes-otherwise", "tokenizer.json", "",
          fmt::format("{} becomes {}, in DeepSeek-V3's tokenizer {}", quote_text(known.text),
                      dump(got), dump(known.ids)),
          dump(got), dump(known.ids));
      break;
    }
  }

  void generation() {
    const char* file = "generation_config.json";
    if (!there(folder_ / file)) return;
    const json settings = object(file);
    if (!settings.is_object()) {
      add("generation-syntax", file, "", "the file is no JSON object");
      return;
    }
    const auto as_list = [](const json& value) {
      return value.is_array() ? value : json::array({value});
    };
    for (const char* key : {"bos_token_id", "eos_token_id"}) {
      if (config_ == nullptr || !settings.contains(key) || !config_->contains(key)) continue;
      const json mine = as_list(settings.at(key));
      const json theirs = as_list(config_->at(key));
      const bool all = std::all_of(theirs.begin(), theirs.end(), [&](const json& id) {
        return std::find(mine.begin(), mine.end(), id) != mine.end();
      });
      if (all) continue;
      add("generation-ids", file, key,
          fmt::format("{} is {}, in config.json {}", key, dump(settings.at(key)),
                      dump(config_->at(key))),
          dump(settings.at(key)), dump(config_->at(key)));
    }
    struct Range {
      const char* key;
      double low, high;
      bool open;  // low itself is out
    };
    for (const Range& range :
         {Range{"temperature", 0.0, 10.0, false}, Range{"top_p", 0.0, 1.0, true},
          Range{"top_k", 0.0, 1e9, false}, Range{"repetition_penalty", 0.0, 10.0, true},
          Range{"min_p", 0.0, 1.0, false}, Range{"max_new_tokens", 0.0, 1e9, true}}) {
      if (!settings.contains(range.key) || settings.at(range.key).is_null()) continue;
      const json& value = settings.at(range.key);
      const double number = value.is_number() ? value.get<double>() : NAN;
      if (number <= range.high && (number > range.low || (!range.open && number == range.low))) {
        continue;
      }
      add("generation-values", file, range.key,
          fmt::format("{} is {}, needed is a number from {:g} to {:g}", range.key, dump(value),
                      range.low, range.high),
          dump(value), fmt::format("{:g} to {:g}", range.low, range.high));
    }
  }

  fs::path folder_;
  const json* config_;
  const ModelConfig* model_;
  Findings& findings_;
  bool settings_read_ = true;
};

}  // namespace

void check_tokenizer(const fs::path& folder, const json* config, const ModelConfig* model,
                     Findings& findings) {
  TokenizerCheck(folder, config, model, findings).run();
}

}  // namespace ds::check
