// Reading tokenizer.json and tokenizer_config.json.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/text/bpe.h"
#include "libcore/text/pretokenizer.h"
#include "libcore/text/tokenizer.h"
#include "libcore/text/vocabulary.h"

namespace ds {

struct TokenizerFile {
  Vocabulary vocabulary;  // model and added tokens
  Bpe bpe;
  Pretokenizer pretokenizer;
  std::vector<AddedToken> added;
  bool ignore_merges = false;  // a pre-token that is a token stays whole
};
// `name` stands in messages. Throws Error(kBadInput).
TokenizerFile parse_tokenizer_file(std::string_view json, const std::string& name);

struct TokenizerConfig {
  std::optional<std::string> bos;
  std::optional<std::string> eos;
  std::optional<std::string> pad;
  bool add_bos = false;
  std::string chat_template;
  std::vector<std::string> notes;
};
// `config` and `jinja` may be empty (no such file). Checks added_tokens_decoder against
// `vocabulary`. Throws Error(kBadInput).
TokenizerConfig parse_tokenizer_config(std::string_view config, std::string_view jinja,
                                       const Vocabulary& vocabulary, const std::string& name);

}  // namespace ds
