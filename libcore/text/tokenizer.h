// tokenizer.json byte-level BPE, token for token as the `tokenizers` library (reference/text.md
// sections 1-3).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ds {

struct AddedToken {
  std::string text;
  std::int32_t id = 0;
  bool special = false;
  bool normalized = false;
};

// A token with the byte range of the input it came from.
struct TokenSpan {
  std::int32_t id = 0;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

// Immutable after load; encode and decode may be called from several threads at once.
class Tokenizer {
 public:
  // Reads FOLDER/tokenizer.json and tokenizer_config.json. Throws Error(kBadInput): kind not
  // supported (SentencePiece, tiktoken, ...: named), a broken field (named).
  static Tokenizer load(const std::filesystem::path& folder);
  // The same from text; `name` stands for the file in messages. config_json may be empty.
  static Tokenizer parse(std::string_view tokenizer_json, const std::string& name,
                         std::string_view config_json);
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Ids of `text`; what is not UTF-8 in it counts as U+FFFD. Adds no BOS or EOS; added tokens in the
  // text are recognised.
  std::vector<std::int32_t> encode(std::string_view text) const;
  // The same with the byte range of each token, for valid UTF-8 and a tokenizer that adds no prefix
  // space.
  std::vector<TokenSpan> encode_spans(std::string_view text) const;
  // UTF-8 text; broken sequences become U+FFFD as the library's byte-level decoder does.
  std::string decode(const std::vector<std::int32_t>& ids, bool skip_special) const;
  // The raw bytes of one token (for streaming output); empty for an unknown id.
  std::string_view token_bytes(std::int32_t id) const;

  std::int32_t bos_id() const;  // -1 when tokenizer_config.json names none
  std::int32_t eos_id() const;
  std::int32_t pad_id() const;
  std::int64_t vocab_size() const;  // largest id + 1
  // Id of an added or vocabulary token by its exact text, -1 when unknown.
  std::int32_t id_of(std::string_view token) const;
  const std::vector<AddedToken>& added_tokens() const;
  // The chat template text of tokenizer_config.json or chat_template.jinja; empty when there is none.
  const std::string& chat_template() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ds
