// Tokenizer files to be spoilt: the shipped small model's, and a made-up vocabulary of
// DeepSeek-V3's size.
#pragma once

#include "libcore/base/utf8.h"
#include "libcore/text/byte_map.h"
#include "tests/core/check/model_fixture.h"

namespace ds::test {

// The files of a folder, to be spoilt.
struct TokenizerFiles {
  nlohmann::json config, tokenizer, settings, generation;
  nlohmann::json map;  // special_tokens_map.json; null: none
  std::string jinja;   // chat_template.jinja; empty: none

  void write(const std::filesystem::path& folder) const {
    const auto put = [&](const char* name, const nlohmann::json& value) {
      if (!value.is_null()) write_text(folder / name, value.dump());
    };
    put("config.json", config);
    put("tokenizer.json", tokenizer);
    put("tokenizer_config.json", settings);
    put("generation_config.json", generation);
    put("special_tokens_map.json", map);
    if (!jinja.empty()) write_text(folder / "chat_template.jinja", jinja);
  }
  nlohmann::json& added(const std::string& text) {
    for (nlohmann::json& token : tokenizer["added_tokens"]) {
      if (token["content"] == text) return token;
    }
    FAIL(text);
    return tokenizer;
  }
  // Another text at the first place in the chat template.
  void replace(const std::string& from, const std::string& to) {
    auto text = settings["chat_template"].get<std::string>();
    const std::size_t at = text.find(from);
    REQUIRE_MESSAGE(at != std::string::npos, from);
    settings["chat_template"] = text.replace(at, from.size(), to);
  }
  // Another text for an added token, in the vocabulary too where it stands there.
  void respell(const std::string& from, const std::string& to) {
    added(from)["content"] = to;
    nlohmann::json& vocabulary = tokenizer["model"]["vocab"];
    if (vocabulary.contains(from)) {
      vocabulary[to] = vocabulary[from];
      vocabulary.erase(from);
    }
  }
};

inline TokenizerFiles nano_tokenizer() {
  const std::filesystem::path folder = source_dir() / "examples" / "nano-v3";
  const auto read = [&](const char* name) {
    return nlohmann::json::parse(read_text(folder / name));
  };
  return {read("config.json"),
          read("tokenizer.json"),
          read("tokenizer_config.json"),
          read("generation_config.json"),
          nullptr,
          ""};
}

// The control tokens of DeepSeek-V3 at their ids, over a vocabulary of numbered words.
inline TokenizerFiles v3_like_tokenizer() {
  TokenizerFiles files = nano_tokenizer();
  nlohmann::json vocabulary = nlohmann::json::object();
  int id = 3;
  for (const std::uint16_t code_point : byte_code_points()) {
    std::string text;
    append_utf8(text, code_point);
    vocabulary[text] = id++;
  }
  for (; id < 128000; ++id) vocabulary["w" + std::to_string(id)] = id;
  files.tokenizer["model"]["vocab"] = vocabulary;
  files.tokenizer["model"]["merges"] = nlohmann::json::array();
  nlohmann::json added = nlohmann::json::array();
  const auto add = [&](const std::string& text, int at, bool special) {
    added.push_back({{"id", at},
                     {"content", text},
                     {"single_word", false},
                     {"lstrip", false},
                     {"rstrip", false},
                     {"normalized", !special},
                     {"special", special}});
  };
  add("<｜begin▁of▁sentence｜>", 0, true);
  add("<｜end▁of▁sentence｜>", 1, true);
  add("<｜▁pad▁｜>", 2, true);
  for (int i = 0; i < 798; ++i) {
    add("<｜place▁holder▁no▁" + std::to_string(i) + "｜>", 128000 + i, true);
  }
  add("<think>", 128798, false);
  add("</think>", 128799, false);
  int next = 128800;
  for (const char* text :
       {"<｜fim▁hole｜>", "<｜fim▁begin｜>", "<｜fim▁end｜>", "<｜User｜>", "<｜Assistant｜>",
        "<|EOT|>", "<｜tool▁calls▁begin｜>", "<｜tool▁calls▁end｜>", "<｜tool▁call▁begin｜>",
        "<｜tool▁call▁end｜>", "<｜tool▁outputs▁begin｜>", "<｜tool▁outputs▁end｜>",
        "<｜tool▁output▁begin｜>", "<｜tool▁output▁end｜>", "<｜tool▁sep｜>"}) {
    add(text, next++, std::string(text) == "<|EOT|>");
  }
  files.tokenizer["added_tokens"] = added;
  files.config["vocab_size"] = 129280;
  return files;
}

}  // namespace ds::test
