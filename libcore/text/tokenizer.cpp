#include "libcore/text/tokenizer.h"

#include <fmt/format.h>

#include <mutex>
#include <nlohmann/json.hpp>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/utf8.h"
#include "libcore/text/added_tokens.h"
#include "libcore/text/bpe.h"
#include "libcore/text/byte_map.h"
#include "libcore/text/json_scan.h"
#include "libcore/text/pretokenizer.h"
#include "libcore/text/vocabulary.h"

namespace ds {

namespace {

using Json = nlohmann::ordered_json;

[[noreturn]] void bad(const std::string& message, const std::string& hint = "") {
  throw Error(ExitCode::kBadInput, message, hint);
}

Json parse_value(std::string_view text, const std::string& where) {
  Json value = Json::parse(text, nullptr, false);
  if (value.is_discarded()) bad(where + " is no JSON");
  return value;
}

std::string type_of(const Json& value) {
  return value.is_object() ? value.value("type", std::string("an object without a type"))
                           : std::string(value.type_name());
}

// The token text of a tokenizer_config entry: a string, or an object with "content".
std::string token_text(const nlohmann::json& config, const char* key) {
  if (!config.is_object() || !config.contains(key)) return "";
  const nlohmann::json& value = config[key];
  if (value.is_string()) return value.get<std::string>();
  if (value.is_object() && value.contains("content") && value["content"].is_string()) {
    return value["content"].get<std::string>();
  }
  return "";
}

std::string template_text(const nlohmann::json& config) {
  if (!config.is_object() || !config.contains("chat_template")) return "";
  const nlohmann::json& value = config["chat_template"];
  if (value.is_string()) return value.get<std::string>();
  if (!value.is_array()) return "";
  std::string first;
  for (const nlohmann::json& entry : value) {
    if (!entry.is_object() || !entry.contains("template") || !entry["template"].is_string()) continue;
    if (entry.value("name", "") == "default") return entry["template"].get<std::string>();
    if (first.empty()) first = entry["template"].get<std::string>();
  }
  return first;
}

std::string code_point_text(std::uint16_t code_point) {
  std::string text;
  append_utf8(text, code_point);
  return text;
}

}  // namespace

struct Tokenizer::Impl {
  std::string name;
  Vocabulary vocabulary;
  std::unique_ptr<Bpe> bpe;
  std::unique_ptr<Pretokenizer> pretokenizer;
  TextSet added_set;
  std::vector<AddedToken> added;
  std::vector<bool> special;  // by id
  std::int32_t bos = -1;
  std::int32_t eos = -1;
  std::int32_t pad = -1;
  std::string chat_template;

  struct Scratch {
    Pretokenizer::Scratch split;
    Bpe::Scratch bpe;
    std::vector<Pretokenizer::Piece> pieces;
  };
  mutable std::mutex mutex;
  mutable std::vector<std::unique_ptr<Scratch>> idle;  // handed out to one caller at a time

  std::unique_ptr<Scratch> take() const {
    const std::lock_guard<std::mutex> lock(mutex);
    if (idle.empty()) return std::make_unique<Scratch>();
    std::unique_ptr<Scratch> scratch = std::move(idle.back());
    idle.pop_back();
    return scratch;
  }
  void give_back(std::unique_ptr<Scratch> scratch) const {
    const std::lock_guard<std::mutex> lock(mutex);
    idle.push_back(std::move(scratch));
  }

  void read(std::string_view text);
  void read_model(std::string_view text);
  void read_merges(std::string_view text);
  void read_added(const Json& tokens);
  void read_config(const nlohmann::json& config);
  void encode_plain(std::string_view text, Scratch& scratch, std::vector<std::int32_t>& ids) const;
  std::vector<std::int32_t> encode(std::string_view text) const;
};

void Tokenizer::Impl::read(std::string_view text) {
  JsonScan scan(text, name);
  std::string scratch;
  std::string_view model;
  Json added_tokens = Json::array();
  Json pre_tokenizer;
  Json normalizer;
  Json decoder;
  scan.expect('{');
  if (!scan.consume('}')) {
    do {
      const std::string key(scan.string(scratch));
      scan.expect(':');
      const std::string_view value = scan.raw_value();
      if (key == "model") model = value;
      if (key == "added_tokens") added_tokens = parse_value(value, name + ": added_tokens");
      if (key == "pre_tokenizer") pre_tokenizer = parse_value(value, name + ": pre_tokenizer");
      if (key == "normalizer") normalizer = parse_value(value, name + ": normalizer");
      if (key == "decoder") decoder = parse_value(value, name + ": decoder");
    } while (scan.consume(','));
    scan.expect('}');
  }
  if (scan.peek() != 0) scan.fail("text after the end of the document");
  if (model.empty()) bad(name + ": key \"model\" is missing");
  const bool plain = normalizer.is_null() ||
                     (type_of(normalizer) == "Sequence" && normalizer.contains("normalizers") &&
                      normalizer["normalizers"].empty());
  if (!plain) {
    bad(fmt::format("{}: normalizer {} is not supported, DeepSeek's tokenizers have none", name,
                    quote_text(type_of(normalizer))));
  }
  if (type_of(decoder) != "ByteLevel") {
    bad(fmt::format("{}: decoder {} is not supported, needed is ByteLevel", name,
                    quote_text(type_of(decoder))));
  }
  read_model(model);
  read_added(added_tokens);
  pretokenizer = std::make_unique<Pretokenizer>(pre_tokenizer, name);
}

void Tokenizer::Impl::read_model(std::string_view text) {
  JsonScan scan(text, name);
  std::string scratch;
  std::string_view vocab;
  std::string_view merges;
  std::string type = "BPE";
  scan.expect('{');
  if (!scan.consume('}')) {
    do {
      const std::string key(scan.string(scratch));
      scan.expect(':');
      const std::string_view value = scan.raw_value();
      if (key == "vocab") vocab = value;
      if (key == "merges") merges = value;
      if (key == "type") type = std::string(value);
      const bool off = value == "null" || value == "false" || value == "\"\"";
      for (const char* unsupported : {"dropout", "unk_token", "continuing_subword_prefix",
                                      "end_of_word_suffix", "fuse_unk", "byte_fallback",
                                      "ignore_merges"}) {
        if (key == unsupported && !off) {
          bad(fmt::format("{}: model.{} is {}, supported is a byte-level BPE without it", name, key,
                          quote_text(value)));
        }
      }
    } while (scan.consume(','));
    scan.expect('}');
  }
  if (type != "BPE" && type != "\"BPE\"") {
    bad(fmt::format("{}: model type {} is not supported, needed is BPE", name, quote_text(type)));
  }
  if (vocab.empty() || merges.empty()) bad(name + ": model.vocab or model.merges is missing");

  // An entry takes at least four bytes, which bounds what a file may make us hold.
  vocabulary = Vocabulary(static_cast<std::int32_t>(
      std::min<std::size_t>(vocab.size() + 1024, std::size_t{1} << 30)));
  vocabulary.reserve(vocab.size() / 20 + 16, vocab.size());
  JsonScan entries(vocab, name);
  entries.expect('{');
  if (!entries.consume('}')) {
    do {
      const std::string_view token = entries.string(scratch);
      entries.expect(':');
      const std::int32_t id = entries.small_integer();
      const Vocabulary::Added added_now = vocabulary.add(token, id);
      if (added_now != Vocabulary::Added::kYes) {
        bad(fmt::format("{}: vocabulary entry {} with id {} {}", name, quote_text(token), id,
                        added_now == Vocabulary::Added::kBadId ? "is empty or out of range"
                                                               : "is there twice"));
      }
    } while (entries.consume(','));
    entries.expect('}');
  }
  read_merges(merges);
}

void Tokenizer::Impl::read_merges(std::string_view text) {
  bpe = std::make_unique<Bpe>(text.size() / 6 + 16);
  std::array<std::int32_t, 256> bytes{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    bytes[byte] = vocabulary.find(code_point_text(byte_code_points()[byte]));
    if (bytes[byte] < 0) {
      bad(fmt::format("{}: the vocabulary has no entry for byte 0x{:02X}: not a byte-level BPE", name,
                      byte));
    }
  }
  bpe->set_byte_ids(bytes);
  JsonScan scan(text, name);
  std::string first_scratch;
  std::string second_scratch;
  std::string merged;
  std::int32_t rank = 0;
  scan.expect('[');
  if (scan.consume(']')) return;
  do {
    std::string_view left;
    std::string_view right;
    if (scan.consume('[')) {  // ["a", "b"], as newer versions write it
      left = scan.string(first_scratch);
      scan.expect(',');
      right = scan.string(second_scratch);
      scan.expect(']');
    } else {
      const std::string_view pair = scan.string(first_scratch);
      const std::size_t space = pair.find(' ');
      if (space == std::string_view::npos) scan.fail("merge without a space, needed is \"a b\"");
      left = pair.substr(0, space);
      right = pair.substr(space + 1);
    }
    merged.assign(left);
    merged += right;
    const std::int32_t l = vocabulary.find(left);
    const std::int32_t r = vocabulary.find(right);
    const std::int32_t m = vocabulary.find(merged);
    if (l < 0 || r < 0 || m < 0) {
      bad(fmt::format("{}: merge {} names a token that is not in the vocabulary", name,
                      quote_text(std::string(left) + " " + std::string(right))));
    }
    bpe->add(l, r, rank++, m);
  } while (scan.consume(','));
  scan.expect(']');
}

void Tokenizer::Impl::read_added(const Json& tokens) {
  if (!tokens.is_array()) bad(name + ": added_tokens is not a list");
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const Json& entry = tokens[i];
    const std::string where = fmt::format("{}: added_tokens[{}]", name, i);
    if (!entry.is_object() || !entry.contains("content") || !entry["content"].is_string() ||
        !entry.contains("id") || !entry["id"].is_number_integer()) {
      bad(where + " has no content and id");
    }
    AddedToken token;
    token.text = entry["content"].get<std::string>();
    const std::int64_t id = entry["id"].get<std::int64_t>();
    for (const char* flag : {"single_word", "lstrip", "rstrip"}) {
      if (entry.contains(flag) && entry[flag] != false) {
        bad(fmt::format("{} ({}): {} is not supported", where, quote_text(token.text), flag));
      }
    }
    token.special = entry.contains("special") && entry["special"] == true;
    token.normalized = entry.contains("normalized") && entry["normalized"] == true;
    if (id < 0 || id > (std::int64_t{1} << 24)) bad(fmt::format("{}: id {} is out of range", where, id));
    token.id = static_cast<std::int32_t>(id);
    if (vocabulary.add(token.text, token.id) != Vocabulary::Added::kYes) {
      bad(fmt::format("{}: {} with id {} contradicts the vocabulary", where, quote_text(token.text),
                      id));
    }
    added_set.add(token.text, token.id);
    if (token.special) {
      if (special.size() <= static_cast<std::size_t>(token.id)) {
        special.resize(static_cast<std::size_t>(token.id) + 1);
      }
      special[static_cast<std::size_t>(token.id)] = true;
    }
    added.push_back(std::move(token));
  }
}

void Tokenizer::Impl::read_config(const nlohmann::json& config) {
  const auto id = [this](const std::string& text) {
    return text.empty() ? -1 : vocabulary.find(text);
  };
  bos = id(token_text(config, "bos_token"));
  eos = id(token_text(config, "eos_token"));
  pad = id(token_text(config, "pad_token"));
  chat_template = template_text(config);
}

void Tokenizer::Impl::encode_plain(std::string_view text, Scratch& scratch,
                                   std::vector<std::int32_t>& ids) const {
  pretokenizer->split(text, scratch.split, scratch.pieces);
  const bool prefix = pretokenizer->adds_prefix_space();
  std::string spaced;
  for (const Pretokenizer::Piece& piece : scratch.pieces) {
    std::string_view word = text.substr(piece.begin, piece.end - piece.begin);
    if (prefix && word.front() != ' ') {
      spaced = " ";
      spaced += word;
      word = spaced;
    }
    bpe->encode(word, scratch.bpe, ids);
  }
}

std::vector<std::int32_t> Tokenizer::Impl::encode(std::string_view text) const {
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 3 + 8);
  std::unique_ptr<Scratch> scratch = take();
  std::size_t from = 0;
  while (from < text.size()) {
    const TextSet::Match match = added_set.find(text, from);
    const std::size_t end = match.value < 0 ? text.size() : match.begin;
    if (end > from) encode_plain(text.substr(from, end - from), *scratch, ids);
    if (match.value < 0) break;
    ids.push_back(match.value);
    from = match.end;
  }
  give_back(std::move(scratch));
  return ids;
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::parse(std::string_view tokenizer_json, const std::string& name,
                           std::string_view config_json) {
  if (utf8_error(tokenizer_json) != kUtf8Valid) {
    bad(fmt::format("{}: byte {} is not UTF-8", name, utf8_error(tokenizer_json)));
  }
  auto impl = std::make_unique<Impl>();
  impl->name = name;
  impl->read(tokenizer_json);
  if (!config_json.empty()) {
    impl->read_config(parse_json_text(config_json, "tokenizer_config.json of " + name));
  }
  return Tokenizer(std::move(impl));
}

Tokenizer Tokenizer::load(const std::filesystem::path& folder) {
  const auto file = folder / "tokenizer.json";
  if (!std::filesystem::exists(file)) {
    for (const char* other : {"tiktoken.model", "tokenizer.model"}) {
      if (std::filesystem::exists(folder / other)) {
        bad(fmt::format("{}: tokenizer kind {} is not supported, needed is tokenizer.json",
                        folder.string(), other),
            "give a pre-tokenised dataset of input_ids and labels");
      }
    }
    bad(fmt::format("{}: tokenizer.json is missing", folder.string()));
  }
  const auto config = folder / "tokenizer_config.json";
  Tokenizer tokenizer =
      parse(read_file(file), file.string(),
            std::filesystem::exists(config) ? read_file(config) : std::string());
  const auto jinja = folder / "chat_template.jinja";
  if (std::filesystem::exists(jinja)) tokenizer.impl_->chat_template = read_file(jinja);
  return tokenizer;
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  if (utf8_error(text) != kUtf8Valid) return impl_->encode(utf8_replace(text));
  return impl_->encode(text);
}

std::vector<TokenSpan> Tokenizer::encode_spans(std::string_view text) const {
  std::vector<TokenSpan> spans;
  std::uint32_t at = 0;
  for (const std::int32_t id : encode(text)) {
    const auto size = static_cast<std::uint32_t>(impl_->vocabulary.bytes(id).size());
    spans.push_back({id, at, at + size});
    at += size;
  }
  return spans;
}

std::string Tokenizer::decode(const std::vector<std::int32_t>& ids, bool skip_special) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    if (id < 0) continue;
    const auto at = static_cast<std::size_t>(id);
    if (skip_special && at < impl_->special.size() && impl_->special[at]) continue;
    bytes += impl_->vocabulary.bytes(id);
  }
  return utf8_replace(bytes);
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  return impl_->vocabulary.bytes(id);
}
std::int32_t Tokenizer::bos_id() const { return impl_->bos; }
std::int32_t Tokenizer::eos_id() const { return impl_->eos; }
std::int32_t Tokenizer::pad_id() const { return impl_->pad; }
std::int64_t Tokenizer::vocab_size() const { return impl_->vocabulary.size(); }
std::int32_t Tokenizer::id_of(std::string_view token) const {
  return impl_->vocabulary.find(token);
}
const std::vector<AddedToken>& Tokenizer::added_tokens() const { return impl_->added; }
const std::string& Tokenizer::chat_template() const { return impl_->chat_template; }

}  // namespace ds
