#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "tools/convert/gguf_tokenizer.h"

namespace ds::convert {

namespace {

using nlohmann::ordered_json;

constexpr std::int64_t kNormal = 1, kControl = 3, kUserDefined = 4, kUnused = 5, kByte = 6;

constexpr const char* kByteLevel =
    R"({"type":"ByteLevel","add_prefix_space":true,"trim_offsets":true,"use_regex":true})";

// Which control tokens `skip_special_tokens` removes is not in a GGUF file; in every published
// V3-family tokenizer it is these.
bool is_special(const std::string& text) {
  return text == "<｜begin▁of▁sentence｜>" || text == "<｜end▁of▁sentence｜>" ||
         text == "<｜▁pad▁｜>" || text == "<|EOT|>" || text.starts_with("<｜place▁holder▁no▁");
}

// Reads the vocabulary keys of one file.
class Rebuilder {
 public:
  Rebuilder(const GgufFile& file, std::vector<std::string>& notes) : file_(file), notes_(notes) {}

  std::map<std::string, std::string> files() {
    const GgufKey* model = file_.find_key("tokenizer.ggml.model");
    const GgufKey* pre = file_.find_key("tokenizer.ggml.pre");
    if (model == nullptr) {
      notes_.push_back("no tokenizer files: the GGUF file has no tokenizer.* keys");
      return {};
    }
    if (model->text() != "gpt2" || pre == nullptr || pre->text() != "deepseek-v3") {
      notes_.push_back(fmt::format(
          "no tokenizer files: the pre-tokenizer is {} {}, and its patterns are not in the file; "
          "take tokenizer.json from the model's repository",
          quote_text(model->text()), pre == nullptr ? "without a name" : quote_text(pre->text())));
      return {};
    }
    read_tokens();
    return {{"tokenizer.json", tokenizer()}, {"tokenizer_config.json", config()}};
  }

 private:
  [[noreturn]] void bad(const std::string& what) const {
    throw Error(ExitCode::kBadInput, file_.path().string() + ": " + what);
  }
  const GgufKey& needed(const char* name) const {
    const GgufKey* key = file_.find_key(name);
    if (key == nullptr) bad(fmt::format("key {} is missing", name));
    return *key;
  }

  void read_tokens() {
    tokens_ = needed("tokenizer.ggml.tokens").texts();
    types_ = needed("tokenizer.ggml.token_type").integers();
    if (types_.size() != tokens_.size()) {
      bad(fmt::format("tokenizer.ggml.tokens has {} items, tokenizer.ggml.token_type {}",
                      tokens_.size(), types_.size()));
    }
    for (std::size_t i = 0; i < types_.size(); ++i) {
      if (types_[i] == kNormal) base_ = i + 1;
    }
  }

  std::string tokenizer() const {
    ordered_json added = ordered_json::array();
    ordered_json vocabulary = ordered_json::object();
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      if (types_[i] == kUnused) continue;
      const std::string text(tokens_[i]);
      // Tokens among the learned ones are in both lists, so that the ranks have no holes.
      if (i < base_ && !vocabulary.emplace(text, i).second) {
        bad(fmt::format("token {} of tokenizer.ggml.tokens, {}, was there before", i,
                        quote_text(text)));
      }
      if (types_[i] == kNormal || types_[i] == kByte) continue;
      if (types_[i] != kControl && types_[i] != kUserDefined) {
        bad(fmt::format("token {} has the type {}, needed is 1, 3, 4, 5 or 6", i, types_[i]));
      }
      const bool special = types_[i] == kControl && is_special(text);
      added.push_back({{"id", i},
                       {"content", text},
                       {"single_word", false},
                       {"lstrip", false},
                       {"rstrip", false},
                       {"normalized", !special || text == "<|EOT|>"},
                       {"special", special}});
    }
    ordered_json merges = ordered_json::array();
    if (const GgufKey* key = file_.find_key("tokenizer.ggml.merges")) {
      for (const std::string_view merge : key->texts()) merges.push_back(std::string(merge));
    }
    ordered_json out;
    out["version"] = "1.0";
    out["truncation"] = nullptr;
    out["padding"] = nullptr;
    out["added_tokens"] = std::move(added);
    out["normalizer"] = {{"type", "Sequence"}, {"normalizers", ordered_json::array()}};
    out["pre_tokenizer"] = deepseek_v3_pre_tokenizer();
    out["post_processor"] = ordered_json::parse(kByteLevel);
    out["post_processor"]["trim_offsets"] = false;
    out["decoder"] = ordered_json::parse(kByteLevel);
    out["model"] = {{"type", "BPE"},
                    {"dropout", nullptr},
                    {"unk_token", nullptr},
                    {"continuing_subword_prefix", nullptr},
                    {"end_of_word_suffix", nullptr},
                    {"fuse_unk", false},
                    {"byte_fallback", false}};
    out["model"]["vocab"] = std::move(vocabulary);
    out["model"]["merges"] = std::move(merges);
    return out.dump(2) + "\n";
  }

  std::string config() const {
    ordered_json out;
    const auto flag = [&](const char* name, bool fallback) {
      const GgufKey* key = file_.find_key(std::string("tokenizer.ggml.") + name);
      out[name] = key == nullptr ? fallback : key->boolean();
    };
    const auto token = [&](const char* name, const char* from) {
      const GgufKey* key = file_.find_key(from);
      if (key == nullptr) return;
      const std::int64_t id = key->integer();
      if (id < 0 || id >= static_cast<std::int64_t>(tokens_.size())) {
        bad(fmt::format("key {} is {}, the vocabulary has {} tokens", from, id, tokens_.size()));
      }
      out[name] = std::string(tokens_[static_cast<std::size_t>(id)]);
    };
    flag("add_bos_token", true);
    flag("add_eos_token", false);
    token("bos_token", "tokenizer.ggml.bos_token_id");
    out["clean_up_tokenization_spaces"] = false;
    token("eos_token", "tokenizer.ggml.eos_token_id");
    out["legacy"] = true;
    if (const GgufKey* length = file_.find_key("deepseek2.context_length")) {
      out["model_max_length"] = length->integer();
    }
    token("pad_token", "tokenizer.ggml.padding_token_id");
    out["tokenizer_class"] = "LlamaTokenizerFast";
    out["unk_token"] = nullptr;
    if (const GgufKey* chat = file_.find_key("tokenizer.chat_template")) {
      out["chat_template"] = std::string(chat->text());
    }
    return out.dump(2) + "\n";
  }

  const GgufFile& file_;
  std::vector<std::string>& notes_;
  std::vector<std::string_view> tokens_;
  std::vector<std::int64_t> types_;
  std::size_t base_ = 0;  // learned tokens are below
};

}  // namespace

nlohmann::json deepseek_v3_pre_tokenizer() {
  return nlohmann::json::parse(R"json({
    "type": "Sequence",
    "pretokenizers": [
      {"type": "Split", "pattern": {"Regex": "\\p{N}{1,3}"}, "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "[\u4e00-\u9fa5\u3040-\u309f\u30a0-\u30ff]+"},
       "behavior": "Isolated", "invert": false},
      {"type": "Split", "pattern": {"Regex": "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"},
       "behavior": "Isolated", "invert": false},
      {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false}
    ]
  })json");
}

std::map<std::string, std::string> tokenizer_files(const GgufFile& file,
                                                   std::vector<std::string>& notes) {
  return Rebuilder(file, notes).files();
}

}  // namespace ds::convert
