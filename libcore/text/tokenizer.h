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
  bool lstrip = false;  // takes the white space before it
  bool rstrip = false;  // takes the white space after it
};

// A token with the byte range of the input it came from.
struct TokenSpan {
  std::int32_t id = 0;
  std::uint32_t begin = 0;
  std::uint32_t end = 0;
};

// Immutable after load; all const functions may be called from several threads at once.
class Tokenizer {
 public:
  // Reads FOLDER/tokenizer.json and, where they are, tokenizer_config.json and chat_template.jinja.
  // Throws Error(kBadInput): "tokenizer kind not supported" (SentencePiece, tiktoken, Unigram, ...:
  // named), a broken or unsupported field (named); Error(kIo): no tokenizer file.
  static Tokenizer load(const std::filesystem::path& folder);
  // The same from texts; `name` stands for tokenizer.json in messages, `config` and `jinja` may be
  // empty.
  static Tokenizer parse(std::string_view json, const std::string& name, std::string_view config,
                         std::string_view jinja = {});
  ~Tokenizer();
  Tokenizer(Tokenizer&&) noexcept;
  Tokenizer& operator=(Tokenizer&&) noexcept;

  // Ids of `text`. Adds no BOS or EOS; added tokens in the text are recognised. Bytes that are not
  // UTF-8 become the tokens of the single bytes. Throws Error(kBadInput) for 4 GiB or more, and
  // when a pattern of the file needs too many steps.
  std::vector<std::int32_t> encode(std::string_view text) const;
  // The same with the byte range of each token. The ranges are in order; together they are the
  // whole text (unless a pre-tokenizer step of the file removes some).
  std::vector<TokenSpan> encode_spans(std::string_view text) const;
  // UTF-8 text; broken sequences become U+FFFD as the library's byte-level decoder does. Unknown
  // ids are left out; skip_special leaves out the special added tokens.
  std::string decode(const std::vector<std::int32_t>& ids, bool skip_special) const;
  // The raw bytes of one token (for streaming output); empty for an unknown id.
  std::string_view token_bytes(std::int32_t id) const;

  std::int32_t bos_id() const;  // -1 when tokenizer_config.json names none
  std::int32_t eos_id() const;
  std::int32_t pad_id() const;
  bool adds_bos() const;            // add_bos_token of tokenizer_config.json, false when absent
  std::int64_t vocab_size() const;  // largest id + 1
  // Id of an added or vocabulary token by its exact text, -1 when unknown.
  std::int32_t id_of(std::string_view token) const;
  const std::vector<AddedToken>& added_tokens() const;
  // The chat template: chat_template.jinja, else that of tokenizer_config.json (of a list the one
  // named "default", else the first); empty when there is none.
  const std::string& chat_template() const;
  // What a user should know about the files, a sentence each: a tokenizer_class that contradicts
  // tokenizer.json, a pad token that is the end token, ...
  const std::vector<std::string>& notes() const;

 private:
  struct Impl;
  explicit Tokenizer(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace ds
