#include "tools/convert/gguf_tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/text/json_scan.h"
#include "libcore/text/tokenizer.h"

namespace ds::convert {

namespace {

namespace fs = std::filesystem;
using nlohmann::json;

enum TokenType : std::int32_t { kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5 };

// Special tokens that tiktoken models of this family have behind their ranks.
constexpr std::size_t kTiktokenSpecials = 256;

std::string read_optional(const fs::path& path) {
  return fs::exists(path) ? read_file(path) : std::string();
}

// The steps of a pre_tokenizer that cut text: "Digits" and the patterns of the Splits.
std::vector<std::string> cutting_steps(const json& pre_tokenizer) {
  std::vector<std::string> steps;
  if (!pre_tokenizer.is_object()) return steps;
  const json list = pre_tokenizer.contains("pretokenizers") ? pre_tokenizer.at("pretokenizers")
                                                            : json::array({pre_tokenizer});
  for (const json& step : list) {
    const std::string type = step.value("type", "");
    if (type == "Split") {
      const json& pattern = step.at("pattern");
      steps.push_back(pattern.value("Regex", pattern.value("String", "")));
    } else if (type == "Digits") {
      steps.emplace_back("Digits");
    }
  }
  return steps;
}

// llama.cpp knows pre-tokenizers by name and takes their patterns from its own table. It tells
// models apart by the ids of a test text, which fits the published vocabularies only; the patterns
// say the same for every vocabulary.
std::string pre_tokenizer_name(const json& pre_tokenizer) {
  const auto steps = cutting_steps(pre_tokenizer);
  const auto has = [&](const char* pattern) {
    return std::find(steps.begin(), steps.end(), pattern) != steps.end();
  };
  if (steps == cutting_steps(deepseek_v3_pre_tokenizer())) return "deepseek-v3";
  if (has("[\r\n]") && has("\\s?\\p{L}+") && has("\\s?\\p{P}+") && has("Digits")) {
    return "deepseek-llm";
  }
  return "";
}

bool looks_special(std::string_view text) {
  return (text.starts_with("<|") && text.ends_with("|>")) ||
         (text.starts_with("<｜") && text.ends_with("｜>"));
}

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  for (std::size_t at = text.find(from); at != std::string::npos;
       at = text.find(from, at + to.size())) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// Rows of the embedding and what each stands for.
class TokenList {
 public:
  TokenList(std::int64_t vocabulary, std::string where)
      : tokens_(static_cast<std::size_t>(vocabulary)),
        types_(tokens_.size(), kUnused),
        where_(std::move(where)) {}

  void set(std::int64_t id, std::string text, TokenType type) {
    if (id < 0 || id >= static_cast<std::int64_t>(tokens_.size())) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: token {} has the id {}, vocab_size of config.json is {}", where_,
                              quote_text(text), id, tokens_.size()),
                  "the tokenizer belongs to another model");
    }
    tokens_[static_cast<std::size_t>(id)] = std::move(text);
    types_[static_cast<std::size_t>(id)] = type;
  }
  void write(const std::string& pre, const std::vector<std::string>& merges, GgufKeyWriter& keys) {
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (types_[i] == kUnused) tokens_[i] = fmt::format("[PAD{}]", i);
    }
    keys.text("tokenizer.ggml.model", "gpt2");
    if (!pre.empty()) keys.text("tokenizer.ggml.pre", pre);
    keys.texts("tokenizer.ggml.tokens", tokens_);
    keys.i32s("tokenizer.ggml.token_type", types_);
    if (!merges.empty()) keys.texts("tokenizer.ggml.merges", merges);
  }

 private:
  std::vector<std::string> tokens_;
  std::vector<std::int32_t> types_;
  std::string where_;
};

// Calls `member(key)`, which reads the value, for every member of the object that comes next.
template <class Member>
void for_members(JsonScan& scan, Member&& member) {
  scan.expect('{');
  if (scan.consume('}')) return;
  std::string scratch;
  do {
    const std::string key(scan.string(scratch));
    scan.expect(':');
    member(key);
  } while (scan.consume(','));
  scan.expect('}');
}

// "left right", of a text or a pair of texts.
std::string read_merge(JsonScan& scan, std::string& scratch) {
  if (!scan.consume('[')) return std::string(scan.string(scratch));
  // A space in a part would be taken for the border between the two: its letter of the byte map.
  std::string merge = replace_all(std::string(scan.string(scratch)), " ", "Ġ");
  scan.expect(',');
  merge += " " + replace_all(std::string(scan.string(scratch)), " ", "Ġ");
  scan.expect(']');
  return merge;
}

struct ByteLevelFile {
  json pre_tokenizer;
  std::vector<std::string> merges;
};
// The vocabulary goes into `list` where it stands: a document of it would take longer than all
// else.
ByteLevelFile read_byte_level(std::string_view text, const std::string& where, TokenList& list) {
  ByteLevelFile file;
  JsonScan scan(text, where);
  for_members(scan, [&](const std::string& part) {
    if (part == "pre_tokenizer") {
      file.pre_tokenizer = json::parse(scan.raw_value());
    } else if (part != "model") {
      scan.raw_value();
    } else {
      for_members(scan, [&](const std::string& key) {
        if (key == "vocab") {
          for_members(scan, [&](const std::string& token) {
            list.set(scan.small_integer(), token, kNormal);
          });
        } else if (key != "merges" || scan.peek() != '[') {
          scan.raw_value();
        } else {
          scan.expect('[');
          std::string scratch;
          while (!scan.consume(']')) {
            file.merges.push_back(read_merge(scan, scratch));
            scan.consume(',');
          }
        }
      });
    }
  });
  return file;
}

struct SpecialIds {
  std::int64_t bos = -1, eos = -1, pad = -1;
};

void write_special(const SpecialIds& named, const ModelConfig& config, GgufKeyWriter& keys,
                   std::vector<std::string>& notes) {
  const auto write = [&](const char* key, std::int64_t id, std::int64_t fallback) {
    const std::int64_t chosen = id >= 0 ? id : fallback;
    if (chosen >= 0 && chosen < config.vocab_size) {
      keys.u32(key, static_cast<std::uint32_t>(chosen));
    } else if (chosen >= 0) {
      notes.push_back(fmt::format("{} is left out: {} is beyond the vocabulary of {}", key, chosen,
                                  config.vocab_size));
    }
  };
  write("tokenizer.ggml.bos_token_id", named.bos, config.bos_token_id);
  write("tokenizer.ggml.eos_token_id", named.eos,
        config.eos_token_ids.empty() ? -1 : config.eos_token_ids.front());
  write("tokenizer.ggml.padding_token_id", named.pad, config.pad_token_id.value_or(-1));
}

void write_settings(const std::string& config_text, const std::string& where,
                    const std::string& chat_template, GgufKeyWriter& keys,
                    std::vector<std::string>& notes) {
  const json config = config_text.empty() ? json::object() : parse_json_text(config_text, where);
  for (const char* name : {"add_bos_token", "add_eos_token"}) {
    const auto found = config.find(name);
    if (found != config.end() && found->is_boolean()) {
      keys.boolean(std::string("tokenizer.ggml.") + name, found->get<bool>());
    }
  }
  if (chat_template.empty()) {
    notes.push_back("tokenizer.chat_template is left out: the folder has no chat template");
  } else {
    keys.text("tokenizer.chat_template", chat_template);
  }
}

void add_byte_level(const fs::path& folder, const ModelConfig& config, GgufKeyWriter& keys,
                    std::vector<std::string>& notes) {
  const fs::path path = folder / "tokenizer.json";
  const std::string where = path.string();
  const std::string text = read_file(path);
  const fs::path settings_path = folder / "tokenizer_config.json";
  const std::string settings = read_optional(settings_path);
  // Whatever is wrong with the file, this says it.
  const Tokenizer tokenizer =
      Tokenizer::parse(text, where, settings, read_optional(folder / "chat_template.jinja"));
  TokenList list(config.vocab_size, where);
  const ByteLevelFile file = read_byte_level(text, where, list);
  for (const AddedToken& token : tokenizer.added_tokens()) {
    const bool control = token.special || looks_special(token.text);
    // llama.cpp matches user-defined tokens in raw text.
    list.set(token.id, control ? token.text : replace_all(token.text, "▁", " "),
             control ? kControl : kUserDefined);
  }
  const std::string pre = pre_tokenizer_name(file.pre_tokenizer);
  if (pre.empty()) {
    notes.push_back(
        "tokenizer.ggml.pre is left out: the pre_tokenizer of tokenizer.json is neither that of "
        "DeepSeek-V3 nor that of V2; llama.cpp will cut text by its default rules");
  }
  list.write(pre, file.merges, keys);
  write_special({tokenizer.bos_id(), tokenizer.eos_id(), tokenizer.pad_id()}, config, keys, notes);
  write_settings(settings, settings_path.string(), tokenizer.chat_template(), keys, notes);
}

void add_tiktoken(const fs::path& folder, const ModelConfig& config, GgufKeyWriter& keys,
                  std::vector<std::string>& notes) {
  const fs::path path = folder / "tiktoken.model";
  TiktokenVocabulary vocabulary = read_tiktoken(read_file(path), path.string());
  TokenList list(config.vocab_size, path.string());
  const std::size_t base = vocabulary.tokens.size();
  for (std::size_t i = 0; i < base; ++i) {
    list.set(static_cast<std::int64_t>(i), std::move(vocabulary.tokens[i]), kNormal);
  }
  const fs::path settings_path = folder / "tokenizer_config.json";
  const std::string settings = read_optional(settings_path);
  const json config_file =
      settings.empty() ? json::object() : parse_json_text(settings, settings_path.string());
  const json names = config_file.value("added_tokens_decoder", json::object());
  const auto end = std::min(base + kTiktokenSpecials, static_cast<std::size_t>(config.vocab_size));
  for (std::size_t i = base; i < end; ++i) {
    const json entry = names.value(std::to_string(i), json::object());
    list.set(static_cast<std::int64_t>(i),
             entry.value("content", fmt::format("<|reserved_token_{}|>", i)), kControl);
  }
  list.write("kimi-k2", vocabulary.merges, keys);
  const std::string jinja = read_optional(folder / "chat_template.jinja");
  const auto own = config_file.find("chat_template");
  const std::string chat_template = !jinja.empty() ? jinja
                                    : own != config_file.end() && own->is_string()
                                        ? own->get<std::string>()
                                        : std::string();
  write_special({}, config, keys, notes);
  write_settings(settings, settings_path.string(), chat_template, keys, notes);
}

}  // namespace

void add_tokenizer_keys(const fs::path& folder, const ModelConfig& config, GgufKeyWriter& keys,
                        std::vector<std::string>& notes) {
  if (fs::exists(folder / "tokenizer.json")) {
    add_byte_level(folder, config, keys, notes);
  } else if (fs::exists(folder / "tiktoken.model")) {
    add_tiktoken(folder, config, keys, notes);
  } else {
    notes.push_back(
        "the tokenizer.* keys are left out: the folder has neither tokenizer.json nor "
        "tiktoken.model; llama.cpp needs them to load the file");
  }
}

}  // namespace ds::convert
