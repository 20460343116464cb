#include "libcore/text/pretokenizer.h"

#include "libcore/base/hash.h"
#include "libcore/text/pattern.h"
#include "libcore/text/unicode_version.h"
#include "libcore/text/white_space.h"
#include "tests/core/text/text_fixture.h"

using namespace ds;
using namespace ds::test;

namespace {

Json split_step(const std::string& pattern, const std::string& behaviour = "Isolated",
                bool invert = false) {
  return {{"type", "Sequence"},
          {"pretokenizers",
           {{{"type", "Split"},
             {"pattern", {{"Regex", pattern}}},
             {"behavior", behaviour},
             {"invert", invert}},
            byte_level()}}};
}

std::vector<std::string> pieces_of(const Json& settings, const std::string& text) {
  const Pretokenizer pretokenizer(settings, "t.json");
  Pretokenizer::Scratch scratch;
  std::vector<Pretokenizer::Piece> pieces;
  pretokenizer.split(text, scratch, pieces);
  std::vector<std::string> texts;
  for (const auto& piece : pieces) {
    texts.push_back(text.substr(piece.begin, piece.end - piece.begin));
  }
  return texts;
}

using Texts = std::vector<std::string>;

}  // namespace

TEST_CASE("pieces of the tokenizers library: 69 pre-tokenizers, every behaviour") {
  const auto rows = read_rows(source_dir() / "tests" / "data" / "pretokenizer_vectors.jsonl");
  CHECK(rows.size() == 138);
  for (const Json& row : rows) {
    const Pretokenizer pretokenizer(row["pre_tokenizer"], "t.json");
    Pretokenizer::Scratch scratch;
    std::vector<Pretokenizer::Piece> pieces;
    pretokenizer.split(row["text"].get<std::string>(), scratch, pieces);
    Json found = Json::array();
    for (const auto& piece : pieces) found.push_back({piece.begin, piece.end});
    CHECK_MESSAGE(found == row["pieces"], row.dump(-1, ' ', true));
  }
}

TEST_CASE("general categories are those of Unicode 16.0 for every code point") {
  constexpr std::array<const char*, 28> kCategories = {
      "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Nd", "Nl", "No", "Pc", "Pd", "Ps", "Pe", "Pi",
      "Pf", "Po", "Sm", "Sc", "Sk", "So", "Zs", "Zl", "Zp", "Cc", "Cf", "Co", "Cn", ""};
  std::string text;
  std::vector<std::uint32_t> begins;
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    begins.push_back(static_cast<std::uint32_t>(text.size()));
    append_utf8(text, c);
  }
  std::string categories(begins.size(), '\xff');
  for (std::size_t k = 0; kCategories[k][0] != 0; ++k) {
    // Removed leaves the code points of all other categories.
    const Pretokenizer pretokenizer(
        split_step("\\p{" + std::string(kCategories[k]) + "}", "Removed"), "t.json");
    Pretokenizer::Scratch scratch;
    std::vector<Pretokenizer::Piece> pieces;
    pretokenizer.split(text, scratch, pieces);
    std::size_t piece = 0;
    for (std::size_t i = 0; i < begins.size(); ++i) {
      while (piece < pieces.size() && pieces[piece].end <= begins[i]) ++piece;
      if (piece < pieces.size() && pieces[piece].begin <= begins[i]) continue;
      // The marks count as one, and the digest has the numbers of all 29 categories.
      categories[i] = static_cast<char>(k < 6 ? k : k + 2);
    }
  }
  CHECK(sha256(categories) == "c5dd16cb68694f14725580649c4f57c3753c3891274f420366a8fe84f017af52");
  CHECK(kUnicodeVersion == "16.0");
}

TEST_CASE("\\s is White_Space") {
  std::vector<std::uint32_t> found;
  for (std::uint32_t c = 0; c < 0x110000; ++c) {
    if (c >= 0xd800 && c < 0xe000) continue;
    std::string text;
    append_utf8(text, c);
    if (white_space_at(text, 0) == text.size()) found.push_back(c);
  }
  const std::vector<std::uint32_t> wanted = {0x9,    0xa,    0xb,    0xc,    0xd,    0x20,   0x85,
                                             0xa0,   0x1680, 0x2000, 0x2001, 0x2002, 0x2003, 0x2004,
                                             0x2005, 0x2006, 0x2007, 0x2008, 0x2009, 0x200a, 0x2028,
                                             0x2029, 0x202f, 0x205f, 0x3000};
  CHECK(found == wanted);
  for (const char* pattern : {"\\s", "[\\s]", "[^\\S]"}) {
    std::string spaces;
    for (const std::uint32_t c : wanted) append_utf8(spaces, c);
    CHECK_MESSAGE(pieces_of(split_step(pattern), spaces).size() == wanted.size(), pattern);
    const std::string others = "\u180e\u200b\ufeff\x1c\x1d\x1e\x1f\u2060";
    CHECK_MESSAGE(pieces_of(split_step(pattern), others).size() == 1, pattern);
  }
  for (const char* pattern : {"\\S", "[\\S]", "[^\\s]"}) {
    CHECK_MESSAGE(pieces_of(split_step(pattern), "\u180e\u200b\ufeff\x1c").size() == 4, pattern);
  }
}

TEST_CASE("\\s+$ by hand finds what the search finds") {
  // (?:\s+$) is the same expression, but goes through PCRE2.
  Dice rng(9);
  for (int i = 0; i < 3000; ++i) {
    std::string text;
    const std::uint64_t length = rng.below(12);
    for (std::uint64_t k = 0; k < length; ++k) {
      constexpr std::array<const char*, 7> kUnits = {" ", "\n", "x", "\r", "\u3000", "\u0085", "é"};
      text += kUnits[rng.below(kUnits.size())];
    }
    REQUIRE(pieces_of(split_step("\\s+$"), text) == pieces_of(split_step("(?:\\s+$)"), text));
  }
}

TEST_CASE("ByteLevel with its own pattern, prefix space") {
  CHECK(pieces_of({{"type", "ByteLevel"}, {"add_prefix_space", false}}, "It's  12 o'clock\n!") ==
        Texts{"It", "'s", " ", " 12", " o", "'", "clock", "\n", "!"});
  CHECK(Pretokenizer(byte_level(true), "t.json").adds_prefix_space());
  CHECK_FALSE(Pretokenizer(byte_level(false), "t.json").adds_prefix_space());
}

TEST_CASE("pre-tokenizers that are not supported are named") {
  const auto said = [](const Json& settings) {
    return error_of([&] { Pretokenizer(settings, "t.json"); });
  };
  CHECK(said(nullptr).find("tokenizer kind not supported") != std::string::npos);
  CHECK(said({{"type", "Metaspace"}}).find("Metaspace") != std::string::npos);
  CHECK(said({{"type", "Whitespace"}}).find("Whitespace") != std::string::npos);
  CHECK(said({{"type", "Digits"}}).find("ByteLevel") != std::string::npos);
  CHECK(said({{"type", "Sequence"}, {"pretokenizers", {byte_level(), {{"type", "Digits"}}}}})
            .find("after ByteLevel") != std::string::npos);
  CHECK(said(split_step("a", "Sideways")).find("Sideways") != std::string::npos);
  CHECK(said(split_step("a*")).find("empty text") != std::string::npos);
  CHECK(said(split_step("(a")).find("broken") != std::string::npos);
  Json literal = split_step("a");
  literal["pretokenizers"][0]["pattern"] = {{"String", ""}};
  CHECK(said(literal).find("empty String") != std::string::npos);
  literal["pretokenizers"][0]["pattern"] = {{"Glob", "a"}};
  CHECK(said(literal).find("Regex and String") != std::string::npos);
}

TEST_CASE("what PCRE2 and Oniguruma read differently is refused by name") {
  const auto said = [](const std::string& pattern) {
    return error_of([&] { to_pcre2_pattern(pattern, "t.json: p"); });
  };
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"\\h", "\\h"},
      {"\\b", "\\b"},
      {"\\R", "\\R"},
      {"\\X", "\\X"},
      {"\\K", "\\K"},
      {"\\G", "\\G"},
      {"(a)\\1", "\\1"},
      {"\\k<n>", "\\k"},
      {"[[:alpha:]]", "POSIX"},
      {"[a[b]]", "set inside"},
      {"[a&&b]", "&&"},
      {"[]a]", "']'"},
      {"[a", "without an end"},
      {"[z-a]", "backwards"},
      {"[\\W]", "\\W inside a set"},
      {"a{1,2}+", "'+' after"},
      {"a{2}?", "'?' after"},
      {"(?i)a", "(?i)"},
      {"(?m:a)", "(?m:"},
      {"(?<n>a)", "(?<n"},
      {"(?~a)", "(?~a"},
      {"(?#a)", "(?#a"},
      {"\\p{Alpha}", "Alpha"},
      {"\\p{Latin}", "Latin"},
      {"\\pL", "without braces"},
      {"\\xff", "beyond ASCII"},
      {"\\x{d800}", "numeric"},
      {"\\u12", "numeric"},
      {"(?i:ss)", "\"ss\""},
      {"(?i:ä)", "non-ASCII"},
      {"(?i:[a-ÿ])", "non-ASCII"},
      {"a\\", "backslash"},
      {"\\p{L}|[\u0870-\u0897]", "newer than Unicode"},
  };
  for (const auto& [pattern, name] : refused) {
    const std::string text = said(pattern);
    CHECK_MESSAGE(text.find(name) != std::string::npos, (pattern + " -> " + text));
    CHECK(text.find("t.json: p") == 0);
  }
  CHECK(said("(?i:'s|'ll)|\\p{Han}+|[^\\r\\n]?\\w{,3}x{a|(?<!a)b(?>c)").empty());
}

TEST_CASE("stand-ins keep lengths and come only for code points of newer versions") {
  std::string stable = "before";
  CHECK_FALSE(to_stable_text("plain 你好 café 😀", stable));
  CHECK(stable == "before");
  const std::string text = "a\U00031350b\u0897c\U0001fae9";
  REQUIRE(to_stable_text(text, stable));
  CHECK(stable.size() == text.size());
  CHECK(utf8_error(stable) == kUtf8Valid);
  CHECK(stable[0] == 'a');
  CHECK(stable[5] == 'b');
  CHECK(stable != text);
}
