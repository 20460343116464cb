#include "libcore/text/tokenizer_file.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/utf8.h"
#include "libcore/text/byte_map.h"
#include "libcore/text/json_scan.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

// The small parts of the file become documents; the vocabulary is read where it stands, the merges
// after it.
struct Parts {
  Json small = Json::object();  // top-level members but model and added_tokens
  Json added = Json::array();
  Json model = Json::object();  // members of model but vocab and merges
  std::optional<Vocabulary> vocabulary;
  bool other_vocab = false;           // vocab is no object, as other model types have it
  std::optional<std::size_t> merges;  // offset of the value
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

void put(Json& object, const std::string& key, Json value, const std::string& where) {
  if (object.contains(key)) refuse(where, fmt::format("\"{}\" stands twice", key));
  object[key] = std::move(value);
}

void add_token(Vocabulary& vocabulary, std::string_view text, std::int32_t id,
               const std::string& where) {
  switch (vocabulary.add(text, id)) {
    case Vocabulary::Added::kYes:
      return;
    case Vocabulary::Added::kTextTaken:
      refuse(where, fmt::format("{} has the ids {} and {}, one is needed", quote_text(text),
                                vocabulary.find(text), id));
    case Vocabulary::Added::kIdTaken:
      refuse(where, fmt::format("{} has the id {} of {}", quote_text(text), id,
                                quote_text(vocabulary.text(id))));
    case Vocabulary::Added::kBadId:
      if (text.empty()) refuse(where, fmt::format("the token {} is the empty text", id));
      refuse(where, fmt::format("{} has the id {}, out of all proportion to the size of the file",
                                quote_text(text), id));
  }
}

// Texts on their way into the vocabulary: kept for a while so that the memory they go to can be
// fetched ahead.
class VocabularyBatch {
 public:
  VocabularyBatch(Vocabulary& vocabulary, std::string where)
      : vocabulary_(vocabulary), where_(std::move(where)) {}

  void add(std::string_view text, std::int32_t id) {
    entries_[count_] = {texts_.size(), text.size(), id};
    texts_ += text;
    vocabulary_.prefetch(text);
    if (++count_ == entries_.size()) flush();
  }
  void flush() {
    for (std::size_t i = 0; i < count_; ++i) {
      const Entry& entry = entries_[i];
      const std::string_view text = std::string_view(texts_).substr(entry.begin, entry.size);
      const std::size_t before = vocabulary_.tokens();
      add_token(vocabulary_, text, entry.id, where_);
      if (vocabulary_.tokens() == before) {
        refuse(where_, fmt::format("{} stands twice", quote_text(text)));
      }
    }
    count_ = 0;
    texts_.clear();
  }

 private:
  struct Entry {
    std::size_t begin = 0;
    std::size_t size = 0;
    std::int32_t id = 0;
  };
  Vocabulary& vocabulary_;
  std::string where_;
  std::string texts_;
  std::array<Entry, 32> entries_{};
  std::size_t count_ = 0;
};

Vocabulary read_vocabulary(JsonScan& scan) {
  const std::size_t bytes = scan.text().size();
  // A token takes at least 6 bytes of the file ("a":0,).
  const std::size_t most = std::min<std::size_t>(bytes / 6 + 65536, Bpe::kIdLimit - 1);
  Vocabulary vocabulary(static_cast<std::int32_t>(most));
  vocabulary.reserve(bytes / 64, bytes / 6);
  VocabularyBatch batch(vocabulary, scan.name() + ": model.vocab");
  read_object(scan, [&](std::string_view text) { batch.add(text, scan.small_integer()); });
  batch.flush();
  return vocabulary;
}

void read_model(JsonScan& scan, Parts& parts) {
  if (scan.peek() != '{') refuse(scan.name(), "model: an object is needed");
  read_object(scan, [&](std::string_view key) {
    if (key == "vocab") {
      if (parts.vocabulary || parts.other_vocab) refuse(scan.name(), "model.vocab stands twice");
      parts.other_vocab = scan.peek() != '{';
      if (parts.other_vocab) {
        scan.raw_value();
      } else {
        parts.vocabulary = read_vocabulary(scan);
      }
    } else if (key == "merges") {
      if (parts.merges) refuse(scan.name(), "model.merges stands twice");
      scan.peek();
      parts.merges = scan.offset();
      scan.raw_value();
    } else {
      const std::string name(key);
      put(parts.model, name, read_document(scan), scan.name() + ": model");
    }
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
  if (!parts.vocabulary) {
    refuse(name, parts.other_vocab ? "model.vocab is no object" : "model.vocab is missing");
  }
  if (!parts.merges) refuse(name, "model.merges is missing");
  if (flag(parts.model, "byte_fallback", name + ": model")) {
    refuse_kind(name, "BPE with byte_fallback (SentencePiece)");
  }
  for (const char* key : {"unk_token", "continuing_subword_prefix", "end_of_word_suffix"}) {
    const Json* value = find(parts.model, key);
    const bool blank =
        value == nullptr || (value->is_string() && value->get_ref<const std::string&>().empty());
    if (!blank) {
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
  if (type == nullptr || !type->is_string())
    refuse(name, "decoder is missing, ByteLevel is needed");
  if (*type != "ByteLevel") {
    refuse(name, fmt::format("the decoder {} is not supported, ByteLevel is needed",
                             type->get_ref<const std::string&>()));
  }
}

// Merges on their way from texts to ids, many at once.
class MergeBatch {
 public:
  MergeBatch(const Vocabulary& vocabulary, Bpe& bpe, std::string where)
      : vocabulary_(vocabulary), bpe_(bpe), where_(std::move(where)) {}

  void add(std::string_view left, std::string_view right) {
    entries_[count_] = {texts_.size(), left.size(), right.size()};
    texts_ += left;
    texts_ += right;
    if (++count_ == entries_.size()) flush();
  }
  void flush() {
    for (std::size_t i = 0; i < count_; ++i) {
      const Entry& entry = entries_[i];
      const std::string_view joined =
          std::string_view(texts_).substr(entry.begin, entry.left + entry.right);
      parts_[3 * i] = joined.substr(0, entry.left);
      parts_[3 * i + 1] = joined.substr(entry.left);
      parts_[3 * i + 2] = joined;
    }
    const std::size_t parts = 3 * count_;
    vocabulary_.find_all(std::span(parts_).first(parts), std::span(ids_).first(parts));
    for (std::size_t i = 0; i < parts; ++i) {
      if (ids_[i] < 0 || parts_[i].empty()) {
        refuse(where_, fmt::format("merge {} needs {}, which is not in the vocabulary",
                                   done_ + i / 3, quote_text(parts_[i])));
      }
    }
    done_ += count_;
    if (done_ > static_cast<std::size_t>(Bpe::kRankLimit)) {
      refuse(where_, fmt::format("more than {} merges", Bpe::kRankLimit));
    }
    for (std::size_t i = 0; i < count_; ++i) bpe_.prefetch(ids_[3 * i], ids_[3 * i + 1]);
    for (std::size_t i = 0; i < count_; ++i) {
      bpe_.add(ids_[3 * i], ids_[3 * i + 1], ids_[3 * i + 2]);
    }
    count_ = 0;
    texts_.clear();
  }
  std::size_t position() const { return done_ + count_; }

 private:
  static constexpr std::size_t kAtOnce = 64;
  struct Entry {
    std::size_t begin = 0;
    std::size_t left = 0;  // bytes
    std::size_t right = 0;
  };
  const Vocabulary& vocabulary_;
  Bpe& bpe_;
  std::string where_;
  std::string texts_;
  std::array<Entry, kAtOnce> entries_{};
  std::array<std::string_view, 3 * kAtOnce> parts_{};
  std::array<std::int32_t, 3 * kAtOnce> ids_{};
  std::size_t count_ = 0;
  std::size_t done_ = 0;
};

Bpe read_merges(JsonScan& scan, const Vocabulary& vocabulary) {
  const std::string where = scan.name() + ": model.merges";
  Bpe bpe(vocabulary.tokens());
  MergeBatch batch(vocabulary, bpe, where);
  std::string first_scratch;
  std::string second_scratch;
  read_array(scan, [&] {
    if (scan.consume('[')) {
      const std::string_view left = scan.string(first_scratch);
      scan.expect(',');
      const std::string_view right = scan.string(second_scratch);
      scan.expect(']');
      batch.add(left, right);
      return;
    }
    const std::string_view pair = scan.string(first_scratch);
    const std::size_t space = pair.find(' ');
    if (space == std::string_view::npos || pair.find(' ', space + 1) != std::string_view::npos) {
      refuse(where, fmt::format("merge {} is {}, two texts with a space between are needed",
                                batch.position(), quote_text(pair)));
    }
    batch.add(pair.substr(0, space), pair.substr(space + 1));
  });
  batch.flush();
  std::array<std::int32_t, 256> bytes{};
  for (std::size_t byte = 0; byte < 256; ++byte) {
    std::string text;
    append_utf8(text, byte_code_points()[byte]);
    bytes[byte] = vocabulary.find(text);
    if (bytes[byte] < 0) {
      refuse_kind(scan.name(), fmt::format("BPE without a token for the byte 0x{:02x}", byte));
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
      refuse(where,
             fmt::format("{} has single_word, which is not supported", quote_text(token.text)));
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
  Parts parts = read_parts(scan);
  check_model(parts, name);
  const Json* pretokenizer = find(parts.small, "pre_tokenizer");
  Pretokenizer steps(pretokenizer != nullptr ? *pretokenizer : Json(), name);
  check_normalizer(parts, name);
  check_decoder(parts, name);
  Vocabulary& vocabulary = *parts.vocabulary;
  scan.seek(*parts.merges);
  Bpe bpe = read_merges(scan, vocabulary);
  std::vector<AddedToken> added = read_added(parts.added, vocabulary, name);
  return {std::move(vocabulary), std::move(bpe), std::move(steps), std::move(added),
          flag(parts.model, "ignore_merges", name + ": model")};
}

}  // namespace ds
