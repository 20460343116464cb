// tokenizer_config.json and chat_template.jinja.
#include <fmt/format.h>

#include <charconv>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/base/utf8.h"
#include "libcore/text/tokenizer_file.h"

namespace ds {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  throw Error(ExitCode::kBadInput, fmt::format("{}: {}", name, what));
}

// A token given as text or as an object with content.
std::optional<std::string> read_token(const json& config, const char* key,
                                      const std::string& name) {
  const auto found = config.find(key);
  if (found == config.end() || found->is_null()) return std::nullopt;
  if (found->is_string()) return found->get<std::string>();
  if (found->is_object()) {
    const auto content = found->find("content");
    if (content != found->end() && content->is_string()) return content->get<std::string>();
  }
  refuse(name, fmt::format("{} is {}, a text or an object with content is needed", key,
                           found->type_name()));
}

std::string read_template(const json& config, TokenizerConfig& result, const std::string& name) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return "";
  if (found->is_string()) return found->get<std::string>();
  if (!found->is_array()) {
    refuse(name,
           fmt::format("chat_template is {}, a text or a list is needed", found->type_name()));
  }
  const json* chosen = nullptr;
  for (const json& entry : *found) {
    const bool complete = entry.is_object() && entry.contains("name") &&
                          entry.contains("template") && entry["name"].is_string() &&
                          entry["template"].is_string();
    if (!complete) refuse(name, "chat_template: every entry of the list needs name and template");
    if (chosen == nullptr || (entry["name"] == "default" && (*chosen)["name"] != "default")) {
      chosen = &entry;
    }
  }
  if (chosen == nullptr) return "";
  if (found->size() > 1) {
    result.notes.push_back(fmt::format("{}: chat_template is a list of {}, \"{}\" is used", name,
                                       found->size(),
                                       (*chosen)["name"].get_ref<const std::string&>()));
  }
  return (*chosen)["template"].get<std::string>();
}

// transformers adds the tokens listed here to those of tokenizer.json: they must agree.
void check_added(const json& config, const Vocabulary& vocabulary, const std::string& name) {
  const auto found = config.find("added_tokens_decoder");
  if (found == config.end() || found->is_null()) return;
  if (!found->is_object()) refuse(name, "added_tokens_decoder: an object is needed");
  for (const auto& [key, entry] : found->items()) {
    const auto content = entry.is_object() ? entry.find("content") : entry.end();
    if (!entry.is_object() || content == entry.end() || !content->is_string()) {
      refuse(name, fmt::format("added_tokens_decoder.{}: an object with content is needed", key));
    }
    const auto& text = content->get_ref<const std::string&>();
    std::int32_t id = -1;
    const auto parsed = std::from_chars(key.data(), key.data() + key.size(), id);
    if (parsed.ec != std::errc() || parsed.ptr != key.data() + key.size() ||
        vocabulary.find(text) != id) {
      refuse(name, fmt::format("added_tokens_decoder.{} is \"{}\", in tokenizer.json its id is {}",
                               key, text, vocabulary.find(text)));
    }
  }
}

void note_class(const json& config, TokenizerConfig& result, const std::string& name) {
  const auto found = config.find("tokenizer_class");
  if (found == config.end() || !found->is_string()) return;
  const auto& type = found->get_ref<const std::string&>();
  if (type != "LlamaTokenizer" && type != "LlamaTokenizerFast") return;
  result.notes.push_back(
      fmt::format("{}: tokenizer_class {} stands for SentencePiece, but tokenizer.json is "
                  "byte-level BPE and is "
                  "followed",
                  name, type));
}

}  // namespace

TokenizerConfig parse_tokenizer_config(std::string_view config, std::string_view jinja,
                                       const Vocabulary& vocabulary, const std::string& name) {
  TokenizerConfig result;
  if (utf8_error(jinja) != kUtf8Valid) refuse(name, "chat_template.jinja is no UTF-8");
  if (!config.empty()) {
    const json value = parse_json_text(config, name);
    if (!value.is_object()) refuse(name, "an object is needed");
    result.bos = read_token(value, "bos_token", name);
    result.eos = read_token(value, "eos_token", name);
    result.pad = read_token(value, "pad_token", name);
    for (const auto* token : {&result.bos, &result.eos, &result.pad}) {
      if (*token && vocabulary.find(**token) < 0) {
        refuse(name, fmt::format("the token \"{}\" is not in tokenizer.json", **token));
      }
    }
    const JsonObject object(value, name);
    result.add_bos = object.boolean("add_bos_token", false);
    if (object.boolean("add_eos_token", false)) {
      result.notes.push_back(name + ": add_eos_token is true; no end token is added to prompts");
    }
    check_added(value, vocabulary, name);
    note_class(value, result, name);
    if (result.pad && result.pad == result.eos) {
      result.notes.push_back(fmt::format(
          "{}: pad_token is eos_token (\"{}\"); padding is tracked by length", name, *result.pad));
    }
    result.chat_template = read_template(value, result, name);
  }
  if (!jinja.empty()) {
    if (!result.chat_template.empty() && result.chat_template != jinja) {
      result.notes.push_back(name +
                             ": chat_template differs from chat_template.jinja, which is used");
    }
    result.chat_template = std::string(jinja);
  }
  return result;
}

}  // namespace ds
