#include "libcore/text/tokenizer.h"

#include <fmt/format.h>

#include <algorithm>
#include <mutex>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/base/mapped_file.h"
#include "libcore/base/utf8.h"
#include "libcore/text/added_tokens.h"
#include "libcore/text/byte_map.h"
#include "libcore/text/tokenizer_file.h"
#include "libcore/text/white_space.h"

namespace ds {
namespace fs = std::filesystem;
namespace {

constexpr std::size_t kTextLimit = UINT32_MAX;

// Why a folder without tokenizer.json cannot be read.
[[noreturn]] void refuse_folder(const fs::path& folder) {
  const auto there = [&](const char* name) { return fs::exists(folder / name); };
  std::string kind;
  if (there("tiktoken.model")) {
    kind = "tiktoken (tiktoken.model, as Moonlight and Kimi have it)";
  } else if (there("tokenizer.model")) {
    kind = "SentencePiece (tokenizer.model)";
  } else if (there("vocab.json") && there("merges.txt")) {
    kind = "vocab.json and merges.txt";
  } else if (there("vocab.txt")) {
    kind = "WordPiece (vocab.txt)";
  } else {
    throw Error(ExitCode::kIo, folder.string() + ": no tokenizer.json in this folder",
                "Name a model folder that has tokenizer.json.");
  }
  throw Error(ExitCode::kBadInput,
              fmt::format("{}: tokenizer kind not supported: {}, tokenizer.json is needed",
                          folder.string(), kind),
              "Convert it with the transformers library, which writes tokenizer.json.");
}

std::string_view view(const MappedFile& file) {
  return {reinterpret_cast<const char*>(file.data()), file.size()};
}

MappedFile map_if_there(const fs::path& path) {
  return fs::exists(path) ? MappedFile(path) : MappedFile();
}

}  // namespace

struct Tokenizer::Impl {
  TokenizerFile file;
  TokenizerConfig config;
  TextSet raw_tokens;         // added tokens that are cut from the raw text
  TextSet normalized_tokens;  // and those cut from what is left
  std::vector<bool> special;  // by id
  std::int32_t bos = -1;
  std::int32_t eos = -1;
  std::int32_t pad = -1;

  // What one call needs, kept for the next one.
  struct Scratch {
    Pretokenizer::Scratch pretokenizer;
    Bpe::Scratch bpe;
    std::vector<Pretokenizer::Piece> pieces;
    std::vector<std::int32_t> ids;
    std::string prefixed;
  };
  mutable std::mutex pool_mutex;
  mutable std::vector<std::unique_ptr<Scratch>> pool;

  class Lease {
   public:
    explicit Lease(const Impl& impl) : impl_(impl) {
      {
        const std::lock_guard lock(impl_.pool_mutex);
        if (!impl_.pool.empty()) {
          scratch_ = std::move(impl_.pool.back());
          impl_.pool.pop_back();
        }
      }
      if (scratch_ == nullptr) scratch_ = std::make_unique<Scratch>();
    }
    ~Lease() {
      const std::lock_guard lock(impl_.pool_mutex);
      impl_.pool.push_back(std::move(scratch_));
    }
    Lease(const Lease&) = delete;
    Lease& operator=(const Lease&) = delete;
    Scratch& operator*() const { return *scratch_; }

   private:
    const Impl& impl_;
    std::unique_ptr<Scratch> scratch_;
  };

  Impl(TokenizerFile file_parts, TokenizerConfig config_parts)
      : file(std::move(file_parts)), config(std::move(config_parts)) {
    special.resize(static_cast<std::size_t>(file.vocabulary.size()));
    for (std::size_t i = 0; i < file.added.size(); ++i) {
      const AddedToken& token = file.added[i];
      special[static_cast<std::size_t>(token.id)] = token.special;
      (token.normalized ? normalized_tokens : raw_tokens)
          .add(token.text, static_cast<std::int32_t>(i));
    }
    const auto id = [&](const std::optional<std::string>& token) {
      return token ? file.vocabulary.find(*token) : -1;
    };
    bos = id(config.bos);
    eos = id(config.eos);
    pad = id(config.pad);
  }

  // The token that is these bytes, -1: none.
  std::int32_t token_of_bytes(std::string_view bytes) const {
    std::string text;
    for (const char byte : bytes) {
      append_utf8(text, byte_code_points()[static_cast<unsigned char>(byte)]);
    }
    return file.vocabulary.find(text);
  }

  // A sink takes added tokens with token() and pre-tokens with word(), after their ids were
  // appended to word_ids().
  template <typename Sink>
  void encode(std::string_view text, Scratch& scratch, Sink& sink) const;
  template <typename Sink, typename Rest>
  void cut(const TextSet& tokens, std::string_view text, std::size_t begin, std::size_t end,
           Sink& sink, Rest&& rest) const;
  template <typename Sink>
  void encode_plain(std::string_view text, std::size_t begin, std::size_t end, Scratch& scratch,
                    Sink& sink) const;
  template <typename Sink>
  void encode_valid(std::string_view text, std::size_t begin, std::size_t end, Scratch& scratch,
                    Sink& sink) const;
};

namespace {

struct IdSink {
  std::vector<std::int32_t>& ids;
  void token(std::int32_t id, std::size_t /*begin*/, std::size_t /*end*/) { ids.push_back(id); }
  std::vector<std::int32_t>& word_ids(std::vector<std::int32_t>& /*scratch*/) { return ids; }
  void word(std::size_t /*begin*/, std::size_t /*end*/, const std::vector<std::int32_t>& /*ids*/,
            bool /*prefixed*/) {}
};

struct SpanSink {
  const Vocabulary& vocabulary;
  std::vector<TokenSpan>& spans;
  void token(std::int32_t id, std::size_t begin, std::size_t end) {
    spans.push_back({id, static_cast<std::uint32_t>(begin), static_cast<std::uint32_t>(end)});
  }
  std::vector<std::int32_t>& word_ids(std::vector<std::int32_t>& scratch) {
    scratch.clear();
    return scratch;
  }
  void word(std::size_t begin, std::size_t end, const std::vector<std::int32_t>& ids,
            bool prefixed) {
    std::size_t at = begin;
    std::size_t extra = prefixed ? 1 : 0;  // the added space has no bytes in the text
    for (const std::int32_t id : ids) {
      const std::size_t size = vocabulary.bytes(id).size() - extra;
      extra = 0;
      token(id, at, std::min(at + size, end));
      at += size;
    }
  }
};

}  // namespace

// Cuts text[begin, end) at the tokens of a set and gives what lies between them to `rest`.
template <typename Sink, typename Rest>
void Tokenizer::Impl::cut(const TextSet& tokens, std::string_view text, std::size_t begin,
                          std::size_t end, Sink& sink, Rest&& rest) const {
  const std::string_view part = text.substr(0, end);
  std::size_t plain = begin;
  std::size_t from = begin;
  while (true) {
    const TextSet::Match match = tokens.find(part, from);
    if (match.value < 0) break;
    const AddedToken& token = file.added[static_cast<std::size_t>(match.value)];
    std::size_t first = match.begin;
    std::size_t last = match.end;
    if (token.lstrip) {
      first = std::max(plain, first - white_space_before(part.substr(begin, first - begin)));
    }
    if (token.rstrip) last += white_space_after(part.substr(last));
    if (plain < first) rest(plain, first);
    sink.token(token.id, first, last);
    plain = last;
    from = match.end;
  }
  if (plain < end) rest(plain, end);
}

template <typename Sink>
void Tokenizer::Impl::encode(std::string_view text, Scratch& scratch, Sink& sink) const {
  if (text.size() >= kTextLimit) {
    throw Error(ExitCode::kBadInput,
                fmt::format("a text of {} bytes is too long to be tokenised at once, less than {} "
                            "are needed",
                            text.size(), kTextLimit),
                "Cut the text into documents.");
  }
  const bool valid = utf8_error(text) == kUtf8Valid;
  cut(raw_tokens, text, 0, text.size(), sink, [&](std::size_t begin, std::size_t end) {
    cut(normalized_tokens, text, begin, end, sink, [&](std::size_t first, std::size_t last) {
      if (valid) {
        encode_valid(text, first, last, scratch, sink);
      } else {
        encode_plain(text, first, last, scratch, sink);
      }
    });
  });
}

// Text that may have bytes that are not UTF-8: those become tokens of single bytes.
template <typename Sink>
void Tokenizer::Impl::encode_plain(std::string_view text, std::size_t begin, std::size_t end,
                                   Scratch& scratch, Sink& sink) const {
  while (begin < end) {
    const std::size_t bad = utf8_error(text.substr(begin, end - begin));
    const std::size_t good_end = bad == kUtf8Valid ? end : begin + bad;
    if (good_end > begin) encode_valid(text, begin, good_end, scratch, sink);
    if (good_end < end) {
      std::vector<std::int32_t>& ids = sink.word_ids(scratch.ids);
      file.bpe.encode(text.substr(good_end, 1), scratch.bpe, ids);
      sink.word(good_end, good_end + 1, ids, false);
    }
    begin = good_end + 1;
  }
}

template <typename Sink>
void Tokenizer::Impl::encode_valid(std::string_view text, std::size_t begin, std::size_t end,
                                   Scratch& scratch, Sink& sink) const {
  const std::string_view part = text.substr(begin, end - begin);
  file.pretokenizer.split(part, scratch.pretokenizer, scratch.pieces);
  const bool add_space = file.pretokenizer.adds_prefix_space();
  for (const Pretokenizer::Piece piece : scratch.pieces) {
    std::string_view word = part.substr(piece.begin, piece.end - piece.begin);
    const bool prefixed = add_space && word[0] != ' ';
    if (prefixed) {
      scratch.prefixed.assign(" ");
      scratch.prefixed += word;
      word = scratch.prefixed;
    }
    std::vector<std::int32_t>& ids = sink.word_ids(scratch.ids);
    const std::int32_t whole = file.ignore_merges ? token_of_bytes(word) : -1;
    if (whole >= 0) {
      ids.push_back(whole);
    } else {
      file.bpe.encode(word, scratch.bpe, ids);
    }
    sink.word(begin + piece.begin, begin + piece.end, ids, prefixed);
  }
}

Tokenizer::Tokenizer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Tokenizer::~Tokenizer() = default;
Tokenizer::Tokenizer(Tokenizer&&) noexcept = default;
Tokenizer& Tokenizer::operator=(Tokenizer&&) noexcept = default;

Tokenizer Tokenizer::load(const fs::path& folder) {
  const fs::path path = folder / "tokenizer.json";
  if (!fs::exists(path)) refuse_folder(folder);
  const MappedFile json(path);
  const MappedFile config = map_if_there(folder / "tokenizer_config.json");
  const MappedFile jinja = map_if_there(folder / "chat_template.jinja");
  TokenizerFile file = parse_tokenizer_file(view(json), path.string());
  TokenizerConfig parsed = parse_tokenizer_config(view(config), view(jinja), file.vocabulary,
                                                  (folder / "tokenizer_config.json").string());
  return Tokenizer(std::make_unique<Impl>(std::move(file), std::move(parsed)));
}

Tokenizer Tokenizer::parse(std::string_view json, const std::string& name, std::string_view config,
                           std::string_view jinja) {
  TokenizerFile file = parse_tokenizer_file(json, name);
  TokenizerConfig parsed =
      parse_tokenizer_config(config, jinja, file.vocabulary, "tokenizer_config.json of " + name);
  return Tokenizer(std::make_unique<Impl>(std::move(file), std::move(parsed)));
}

std::vector<std::int32_t> Tokenizer::encode(std::string_view text) const {
  const Impl::Lease scratch(*impl_);
  std::vector<std::int32_t> ids;
  ids.reserve(text.size() / 4 + 8);
  IdSink sink{ids};
  impl_->encode(text, *scratch, sink);
  return ids;
}

std::vector<TokenSpan> Tokenizer::encode_spans(std::string_view text) const {
  const Impl::Lease scratch(*impl_);
  std::vector<TokenSpan> spans;
  spans.reserve(text.size() / 4 + 8);
  SpanSink sink{impl_->file.vocabulary, spans};
  impl_->encode(text, *scratch, sink);
  return spans;
}

std::string Tokenizer::decode(const std::vector<std::int32_t>& ids, bool skip_special) const {
  std::string bytes;
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= vocab_size()) continue;
    if (skip_special && impl_->special[static_cast<std::size_t>(id)]) continue;
    bytes += impl_->file.vocabulary.bytes(id);
  }
  return utf8_error(bytes) == kUtf8Valid ? bytes : utf8_replace(bytes);
}

std::string_view Tokenizer::token_bytes(std::int32_t id) const {
  return impl_->file.vocabulary.bytes(id);
}

std::int32_t Tokenizer::bos_id() const { return impl_->bos; }
std::int32_t Tokenizer::eos_id() const { return impl_->eos; }
std::int32_t Tokenizer::pad_id() const { return impl_->pad; }
bool Tokenizer::adds_bos() const { return impl_->config.add_bos; }
std::int64_t Tokenizer::vocab_size() const { return impl_->file.vocabulary.size(); }
std::int32_t Tokenizer::id_of(std::string_view token) const {
  return impl_->file.vocabulary.find(token);
}
const std::vector<AddedToken>& Tokenizer::added_tokens() const { return impl_->file.added; }
const std::string& Tokenizer::chat_template() const { return impl_->config.chat_template; }
const std::vector<std::string>& Tokenizer::notes() const { return impl_->config.notes; }

}  // namespace ds
