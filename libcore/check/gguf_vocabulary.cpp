// Vocabulary, special tokens and chat template of a GGUF file.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <unordered_map>

#include "libcore/base/format.h"
#include "libcore/check/alike.h"
#include "libcore/check/gguf_target.h"
#include "libcore/check/near_miss.h"
#include "libcore/check/template_text.h"

namespace ds::check {
namespace {

constexpr std::int64_t kNormal = 1, kLastType = 6;

class GgufVocabulary {
 public:
  GgufVocabulary(const GgufTarget& target, Findings& findings)
      : target_(target),
        findings_(findings),
        first_(*target.first()),
        file_(first_.path().string()) {}

  void run() {
    const GgufKey* model = first_.find_key("tokenizer.ggml.model");
    if (model == nullptr) {
      add("gguf-no-tokenizer", "tokenizer.ggml.model", "the key tokenizer.ggml.model is absent");
      return;
    }
    pre_tokenizer();
    const GgufKey* tokens = array("tokenizer.ggml.tokens", true);
    if (tokens == nullptr) return;
    tokens_ = tokens->texts();
    ids_.reserve(tokens_.size());
    for (std::size_t i = 0; i < tokens_.size(); ++i) {
      const auto at = ids_.try_emplace(tokens_[i], i);
      if (at.second) continue;
      alike_.add("gguf-duplicate-token", "", "", "", [&] {
        return finding("tokenizer.ggml.tokens",
                       fmt::format("tokens {} and {} are both {}", at.first->second, i,
                                   quote_text(tokens_[i])));
      });
    }
    lengths();
    types();
    if (model->type == GgufValueType::kString && model->text() == "gpt2") merges();
    special();
    chat_template();
    alike_.flush(findings_);
  }

 private:
  Finding finding(const std::string& key, const std::string& what) const {
    return {.file = file_, .key = key, .message = fmt::format("{}: {}", file_, what)};
  }
  void add(const char* rule, const std::string& key, const std::string& what,
           const std::string& found = "", const std::string& expected = "") {
    Finding one = finding(key, what);
    one.found = found;
    one.expected = expected;
    findings_.add(rule, std::move(one));
  }

  void pre_tokenizer() {
    constexpr std::array<std::string_view, 4> kKnown{"deepseek-v3", "deepseek-llm",
                                                     "deepseek-coder", "kimi-k2"};
    const char* name = "tokenizer.ggml.pre";
    const GgufKey* pre = first_.find_key(name);
    const bool text = pre != nullptr && pre->type == GgufValueType::kString;
    if (text && std::find(kKnown.begin(), kKnown.end(), pre->text()) != kKnown.end()) return;
    const std::string found = pre == nullptr ? "absent" : pre->summary();
    add("gguf-pre-tokenizer", name, fmt::format("{} is {}", name, found), found,
        "deepseek-v3, deepseek-llm or kimi-k2");
  }

  // The key when it is an array of strings, or of integers.
  const GgufKey* array(const char* name, bool texts) {
    const GgufKey* key = first_.find_key(name);
    const auto is_integer = [](GgufValueType type) {
      return type == GgufValueType::kI32 || type == GgufValueType::kU32 ||
             type == GgufValueType::kI64 || type == GgufValueType::kI16 ||
             type == GgufValueType::kU16 || type == GgufValueType::kI8 ||
             type == GgufValueType::kU8;
    };
    const bool right = key != nullptr && key->is_array() &&
                       (texts ? key->element == GgufValueType::kString : is_integer(key->element));
    if (right) return key;
    const std::string found = key == nullptr ? "absent"
                              : key->is_array()
                                  ? std::string("array of ") + gguf_value_type_name(key->element)
                                  : std::string(gguf_value_type_name(key->type));
    const std::string expected = texts ? "array of strings" : "array of integers";
    add("gguf-vocabulary", name, fmt::format("{} is {}, needed is an {}", name, found, expected),
        found, expected);
    return nullptr;
  }

  void length(const char* key, std::uint64_t found, std::uint64_t expected, const char* of) {
    if (found == expected) return;
    add("gguf-vocabulary", key, fmt::format("{} has {} items, {} has {}", key, found, of, expected),
        std::to_string(found), std::to_string(expected));
  }
  void lengths() {
    const GgufTensor* embedding = find_gguf_tensor(target_.entries(), "token_embd.weight").tensor;
    if (embedding != nullptr && embedding->shape.size() == 2) {
      length("tokenizer.ggml.tokens", tokens_.size(),
             static_cast<std::uint64_t>(embedding->shape.front()), "token_embd.weight");
    }
    const GgufKey* scores = first_.find_key("tokenizer.ggml.scores");
    if (scores != nullptr) {
      length("tokenizer.ggml.scores", scores->count, tokens_.size(), "tokenizer.ggml.tokens");
    }
  }

  void types() {
    const char* name = "tokenizer.ggml.token_type";
    const GgufKey* key = array(name, false);
    if (key == nullptr) return;
    const std::vector<std::int64_t> types = key->integers();
    length(name, types.size(), tokens_.size(), "tokenizer.ggml.tokens");
    for (std::size_t i = 0; i < types.size(); ++i) {
      if (types[i] >= kNormal && types[i] <= kLastType) continue;
      alike_.add("gguf-token-type", "type", std::to_string(types[i]), "1 to 6", [&] {
        return finding(name,
                       fmt::format("token {} has the type {}, needed is 1 to 6", i, types[i]));
      });
    }
    for (const std::string& token : control_tokens()) {
      const auto at = ids_.find(token);
      if (at == ids_.end() || at->second >= types.size() || types[at->second] != kNormal) continue;
      alike_.add("gguf-token-type", "control", "1", "3 or 4", [&] {
        return finding(name, fmt::format("the control token {} ({}) has the type 1, plain text",
                                         at->second, quote_text(token)));
      });
    }
  }

  void merges() {
    const char* name = "tokenizer.ggml.merges";
    const GgufKey* key = first_.find_key(name);
    if (key == nullptr && tokens_.size() <= 256) return;  // bytes alone
    key = array(name, true);
    if (key == nullptr) return;
    std::string whole;
    std::size_t number = 0;
    for (const std::string_view merge : key->texts()) {
      const std::size_t space = merge.find(' ');
      const bool pair = space != std::string_view::npos && space > 0 && space + 1 < merge.size() &&
                        merge.find(' ', space + 1) == std::string_view::npos;
      std::string problem;
      if (!pair) {
        problem = "is no pair of two parts";
      } else {
        const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
        whole.assign(left).append(right);
        const auto known = [&](std::string_view token) { return ids_.count(token) > 0; };
        if (!known(left) || !known(right)) problem = "has a part that is no token";
        if (problem.empty() && !known(whole)) problem = "makes no token";
      }
      if (!problem.empty()) {
        alike_.add("gguf-merges", problem, "", "", [&] {
          return finding(name, fmt::format("merge {} {} {}", number, quote_text(merge), problem));
        });
      }
      ++number;
    }
  }

  void special() {
    constexpr std::string_view kBegin = "<\uff5cbegin\u2581of\u2581sentence\uff5c>";
    constexpr std::string_view kEnd = "<\uff5cend\u2581of\u2581sentence\uff5c>";
    for (const GgufKey& key : first_.keys()) {
      if (!key.name.starts_with("tokenizer.ggml.") || !key.name.ends_with("_token_id")) continue;
      const auto id = gguf_integer(&key);
      if (id && *id >= 0 && *id < static_cast<std::int64_t>(tokens_.size())) continue;
      add("gguf-token-id", key.name,
          fmt::format("{} is {}, the vocabulary has {} tokens", key.name, key.summary(),
                      format_count(static_cast<std::int64_t>(tokens_.size()))),
          key.summary(), fmt::format("below {}", tokens_.size()));
    }
    const auto names = [&](const char* name, std::string_view token) {
      const auto at = ids_.find(token);
      const auto id = gguf_integer(first_.find_key(name));
      if (at == ids_.end() || (id && static_cast<std::size_t>(*id) == at->second)) return;
      if (id && (*id < 0 || *id >= static_cast<std::int64_t>(tokens_.size()))) return;  // said
      const std::string found = id ? std::to_string(*id) : "absent";
      add("gguf-token-id", name,
          fmt::format("{} is {}, the token {} is {}", name, found, token, at->second), found,
          std::to_string(at->second));
    };
    names("tokenizer.ggml.bos_token_id", kBegin);
    names("tokenizer.ggml.eos_token_id", kEnd);
  }

  void chat_template() {
    const char* name = "tokenizer.chat_template";
    const GgufKey* key = first_.find_key(name);
    if (key == nullptr || key->type != GgufValueType::kString || key->text().empty()) {
      add("template-missing", name, "there is no chat template");
      return;
    }
    const std::string text(key->text());
    check_template_text(
        {.file = file_,
         .key = name,
         .text = text,
         .has_token = [&](const std::string& token) { return ids_.count(token) > 0; }},
        findings_);
  }

  const GgufTarget& target_;
  Findings& findings_;
  const GgufFile& first_;
  std::string file_;
  std::vector<std::string_view> tokens_;
  std::unordered_map<std::string_view, std::size_t> ids_;
  Alike alike_;
};

}  // namespace

void check_gguf_vocabulary(const GgufTarget& target, Findings& findings) {
  GgufVocabulary(target, findings).run();
}

}  // namespace ds::check
