#include "libcore/text/tokenizer_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/base/utf8.h"
#include "libcore/text/byte_map.h"
#include "libcore/text/json_scan.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

// The small parts of the file become documents, the vocabulary and the merges stay text.
struct Parts {
  Json small = Json::object();  // top-level members but model and added_tokens
  Json added = Json::array();
  Json model = Json::object();  // members of model but vocab and merges
  std::optional<std::size_t> vocab;  // offset of the value
  std::optional<std::size_t> merges;
};

[[noreturn]] void refuse(const std::string& name, const std::string& what) {
  throw Error(ExitCode::kBadInput, fmt::format("{}: {}", name, what));
}

[[noreturn]] void refuse_kind(const std::string& name, const std::string& kind) {
  throw Error(ExitCode::kBadInput, fmt::format("{}: tokenizer kind not supported: {}", name, kind),
              "Only byte-level BPE in a tokenizer.json can be used, as DeepSeek's models have it.");
}

Json read_document(JsonScan& scan) {
  const std::size_t at = scan.offset();
  Json value = Json::parse(scan.raw_value(), nullptr, false);
  if (value.is_discarded()) refuse(scan.name(), fmt::format("byte {}: no JSON value", at));
  return value;
}

// Calls `member(key)`, which reads the value, for every member of the object that comes next.
template <typename Member>
void read_object(JsonScan& scan, Member&& member) {
  scan.expect('{');
  if (scan.consume('}')) return;
  std::string scratch;
  do {
    const std::string_view key = scan.string(scratch);
    scan.expect(':');
    member(key);
  } while (scan.consume(','));
  scan.expect('}');
}

template <typename Element>
void read_array(JsonScan& scan, Element&& element) {
  scan.expect('[');
  if (scan.consume(']')) return;
  do {
    element();
  } while (scan.consume(','));
  scan.expect(']');
}

void put(Json& object, std::string_view key, Json value, const std::string& where) {
  if (object.contains(key)) refuse(where, fmt::format("\"{}\" stands twice", key));
  object[std::string(key)] = std::move(value);
}

void read_model(JsonScan& scan, Parts& parts) {
  if (scan.peek() != '{') refuse(scan.name(), "model: an object is needed");
  read_object(scan, [&](std::string_view key) {
    auto* offset = key == "vocab" ? &parts.vocab : key == "merges" ? &parts.merges : nullptr;
    if (offset == nullptr) {
      const std::string name(key);
      put(parts.model, name, read_document(scan), scan.name() + ": model");
      return;
    }
    if (*offset) refuse(scan.name(), fmt::format("model.{} stands twice", key));
    scan.peek();
    *offset = scan.offset();
    scan.raw_value();
  });
}

Parts read_parts(JsonScan& scan) {
  Parts parts;
  bool model = false;
  bool added = false;
  read_object(scan, [&](std::string_view key) {
    if (key == "model") {
      if (model) refuse(scan.name(), "\"model\" stands twice");
      model = true;
      read_model(scan, parts);
    } else if (key == "added_tokens") {
      if (added) refuse(scan.name(), "\"added_tokens\" stands twice");
      added = true;
      parts.added = read_document(scan);
    } else {
      const std::string name(key);
      put(parts.small, name, read_document(scan), scan.name());
    }
  });
  if (scan.peek() != '\0' || scan.offset() < scan.text().size()) {
    scan.fail("text after the end of the document");
  }
  if (!model) refuse(scan.name(), "\"model\" is missing");
  return parts;
}

const Json* find(const Json& object, const char* key) {
  const auto found = object.find(key);
  return found == object.end() || found->is_null() ? nullptr : &*found;
}

bool flag(const Json& object, const char* key, const std::string& where) {
  const Json* value = find(object, key);
  if (value == nullptr) return false;
  if (!value->is_boolean()) {
    refuse(where, fmt::format("{} is {}, true or false is needed", key, value->type_name()));
  }
  return value->get<bool>();
}

// Refuses every setting of the model that would change tokens and that we do not have.
void check_model(const Parts& parts, const std::string& name) {
  const Json* type = find(parts.model, "type");
  if (type != nullptr && !type->is_string()) refuse(name, "model.type: a text is needed");
  if (type != nullptr && *type != "BPE") refuse_kind(name, type->get<std::string>());
  if (!parts.vocab) refuse(name, "model.vocab is missing");
  if (!parts.merges) refuse(name, "model.merges is missing");
  if (flag(parts.model, "byte_fallback", name + ": model")) {
    refuse_kind(name, "BPE with byte_fallback (SentencePiece)");
  }
  for (const char* key : {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* value = find(parts.model, key);
    if (value != nullptr && *value != "") {
      refuse(name, fmt::format("model.{} is set, null is needed", key));
    }
  }
  if (const Json* dropout = find(parts.model, "dropout"); dropout != nullptr && *dropout != 0) {
    refuse(name, "model.dropout is set, null is needed");
  }
}

void check_normalizer(const Parts& parts, const std::string& name) {
  const Json* normalizer = find(parts.small, "normalizer");
  if (normalizer == nullptr) return;
  const Json* type = normalizer->is_object() ? find(*normalizer, "type") : nullptr;
  if (type == nullptr || !type->is_string()) refuse(name, "normalizer: an object with type needed");
  const Json* list = find(*normalizer, "normalizers");
  if (*type == "Sequence" && list != nullptr && list->is_array()) {
    if (list->empty()) return;
    const Json& first = list->front();
    const Json* inner = first.is_object() ? find(first, "type") : nullptr;
    if (inner != nullptr && inner->is_string()) type = inner;
  }
  refuse(name, fmt::format("the normalizer {} is not supported, none is needed",
                           type->get_ref<const std::string&>()));
}

void check_decoder(const Parts& parts, const std::string& name) {
  const Json* decoder = find(parts.small, "decoder");
  const Json* type = decoder != nullptr && decoder->is_object() ? find(*decoder, "type") : nullptr;
  if (type == nullptr || !type->is_string()) refuse(name, "decoder is missing, ByteLevel is needed");
  if (*type != "ByteLevel") {
    refuse(name, fmt::format("the decoder {} is not supported, ByteLevel is needed",
                             type->get_ref<const std::string&>()));
  }
}

void add_token(Vocabulary& vocabulary, std::string_view text, std::int32_t id,
               const std::string& where) {
  switch (vocabulary.add(text, id)) {
    case Vocabulary::Added::kYes:
      return;
    case Vocabulary::Added::kTextTaken:
      refuse(where, fmt::format("\"{}\" has the ids {} and {}, one is needed", text,
                                vocabulary.find(text), id));
    case Vocabulary::Added::kIdTaken:
      refuse(where, fmt::format("\"{}\" has the id {} of \"{}\"", text, id, vocabulary.text(id)));
    case Vocabulary::Added::kBadId:
      refuse(where, text.empty() ? fmt::format("the token {} is empty", id)
                                 : fmt::format("\"{}\" has the id {}, which is out of all proportion "
                                               "to the size of the file",
                                               text, id));
  }
}

Vocabulary read_vocabulary(std::string_view json, std::size_t at, const std::string& name) {
  JsonScan scan(json, name);
  scan.seek(at);
  // A token takes at least 6 bytes of the file ("a":0,).
  const std::size_t most = json.size() / 6 + 65536;
  Vocabulary vocabulary(static_cast<std::int32_t>(std::min<std::size_t>(most, INT32_MAX / 2)));
  vocabulary.reserve(json.size() / 48, json.size() / 6);
  const std::string where = name + ": model.vocab";
  read_object(scan, [&](std::string_view text) {
    // The empty text can never be matched; some files have it.
    const std::int32_t id = scan.small_integer();
    const std::size_t before = vocabulary.tokens();
    add_token(vocabulary, text, id, where);
    if (vocabulary.tokens() == before) refuse(where, fmt::format("\"{}\" stands twice", text));
  });
  return vocabulary;
}

std::int32_t token_of(const Vocabulary& vocabulary, std::string_view text, std::size_t rank,
                      const std::string& where) {
  const std::int32_t id = vocabulary.find(text);
  if (id < 0) {
    refuse(where, fmt::format("merge {} needs \"{}\", which is not in the vocabulary", rank, text));
  }
  return id;
}

Bpe read_merges(std::string_view json, std::size_t at, const Vocabulary& vocabulary,
                const std::string& name) {
  JsonScan scan(json, name);
  scan.seek(at);
  const std::string where = name + ": model.merges";
  Bpe bpe(vocabulary.tokens());
  std::string first_scratch;
  std::string second_scratch;
  std::string joined;
  std::size_t rank = 0;
  read_array(scan, [&] {
    std::string_view left;
    std::string_view right;
    if (scan.consume('[')) {
      left = scan.string(first_scratch);
      scan.expect(',');
      right = scan.string(second_scratch);
      scan.expect(']');
    } else {
      const std::string_view pair = scan.string(first_scratch);
      const std::size_t space = pair.find(' ');
      if (space == std::string_view::npos || pair.find(' ', space + 1) != std::string_view::npos) {
        refuse(where, fmt::format("merge {} is \"{}\", two texts are needed", rank, pair));
      }
      left = pair.substr(0, space);
      right = pair.substr(space + 1);
    }
    const std::int32_t left_id = token_of(vocabulary, left, rank, where);
    const std::int32_t right_id = token_of(vocabulary, right, rank, where);
    joined.assign(left);
    joined += right;
    bpe.add(left_id, right_id, static_cast<std::int32_t>(rank),
            token_of(vocabulary, joined, rank, where));
    ++rank;
  });
  std::array<std::int32_t, 256> bytes{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string text;
    append_utf8(text, byte_code_points()[byte]);
    bytes[byte] = vocabulary.find(text);
    if (bytes[byte] < 0) {
      refuse_kind(name, fmt::format("BPE without a token for the byte 0x{:02x} (\"{}\")", byte,
                                    text));
    }
  }
  bpe.set_byte_ids(bytes);
  return bpe;
}

std::vector<AddedToken> read_added(const Json& list, Vocabulary& vocabulary,
                                   const std::string& name) {
  if (!list.is_array()) refuse(name, "added_tokens: a list is needed");
  std::vector<AddedToken> added;
  for (std::size_t i = 0; i < list.size(); ++i) {
    const std::string where = fmt::format("{}: added_tokens[{}]", name, i);
    const Json& entry = list[i];
    const Json* content = entry.is_object() ? find(entry, "content") : nullptr;
    const Json* id = entry.is_object() ? find(entry, "id") : nullptr;
    if (content == nullptr || !content->is_string() || content->get<std::string>().empty()) {
      refuse(where, "content: a text is needed");
    }
    if (id == nullptr || !id->is_number_integer() || *id < 0 || *id > INT32_MAX) {
      refuse(where, "id: an integer is needed");
    }
    AddedToken token;
    token.text = content->get<std::string>();
    token.id = id->get<std::int32_t>();
    token.special = flag(entry, "special", where);
    const bool has_normalized = find(entry, "normalized") != nullptr;
    token.normalized = has_normalized ? flag(entry, "normalized", where) : !token.special;
    token.lstrip = flag(entry, "lstrip", where);
    token.rstrip = flag(entry, "rstrip", where);
    if (flag(entry, "single_word", where)) {
      refuse(where, fmt::format("\"{}\" has single_word, which is not supported", token.text));
    }
    const bool twice = std::any_of(added.begin(), added.end(),
                                   [&](const AddedToken& other) { return other.id == token.id; });
    if (twice) refuse(where, fmt::format("the id {} stands twice", token.id));
    add_token(vocabulary, token.text, token.id, where);
    added.push_back(std::move(token));
  }
  return added;
}

}  // namespace

TokenizerFile parse_tokenizer_file(std::string_view json, const std::string& name) {
  if (json.starts_with("\xef\xbb\xbf")) json.remove_prefix(3);
  if (json.size() >= INT32_MAX) refuse(name, "2 GiB or more, a smaller file is needed");
  if (const std::size_t bad = utf8_error(json); bad != kUtf8Valid) {
    refuse(name, fmt::format("byte {}: no UTF-8", bad));
  }
  JsonScan scan(json, name);
  const Parts parts = read_parts(scan);
  check_model(parts, name);
  const Json* pretokenizer = find(parts.small, "pre_tokenizer");
  Pretokenizer steps(pretokenizer != nullptr ? *pretokenizer : Json(), name);
  check_normalizer(parts, name);
  check_decoder(parts, name);
  Vocabulary vocabulary = read_vocabulary(json, *parts.vocab, name);
  Bpe bpe = read_merges(json, *parts.merges, vocabulary, name);
  std::vector<AddedToken> added = read_added(parts.added, vocabulary, name);
  return {std::move(vocabulary), std::move(bpe), std::move(steps), std::move(added),
          flag(parts.model, "ignore_merges", name + ": model")};
}

}  // namespace ds
