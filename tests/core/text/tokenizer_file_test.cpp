// Reading tokenizer.json and tokenizer_config.json: what is honoured, what is refused.
#include "libcore/text/tokenizer.h"
#include "tests/core/text/text_fixture.h"

using namespace ds;
using namespace ds::test;

namespace {

using Ids = std::vector<std::int32_t>;

Tokenizer parse(const Json& file, const std::string& config = "", const std::string& jinja = "") {
  return Tokenizer::parse(file.dump(), "t.json", config, jinja);
}

std::string said(const Json& file, const std::string& config = "") {
  return error_of([&] { parse(file, config); });
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("merges by rank, leftmost first") {
  const Tokenizer tokenizer = parse(small_tokenizer());
  CHECK(tokenizer.encode("abc") == Ids{257});
  CHECK(tokenizer.encode("bc") == Ids{258});
  CHECK(tokenizer.encode("aab") == Ids{'a', 256});  // "a b" before "a a"
  CHECK(tokenizer.encode("aaa") == Ids{260, 'a'});
  CHECK(tokenizer.encode(" abc") == Ids{' ', 257});
  CHECK(tokenizer.encode(" ac") == Ids{259, 'c'});
  // The queue for long words gives the same as scanning does.
  Dice rng(3);
  for (int i = 0; i < 300; ++i) {
    std::string text;
    std::string separated;
    Ids wanted;
    while (text.size() < 400) {
      std::string word;
      const std::uint64_t length = 1 + rng.below(20);
      for (std::uint64_t k = 0; k < length; ++k) word += "abc"[rng.below(3)];
      word += 'x';  // no merge has it
      text += word;
      const Ids ids = tokenizer.encode(word);
      wanted.insert(wanted.end(), ids.begin(), ids.end());
    }
    REQUIRE(tokenizer.encode(text) == wanted);
  }
}

TEST_CASE("merges as pairs, vocabulary in any order, escapes, a byte order mark") {
  Json file = small_tokenizer();
  const Tokenizer first = parse(file);
  Json merges = Json::array();
  for (const Json& merge : file["model"]["merges"]) {
    const auto text = merge.get<std::string>();
    const std::size_t space = text.find(' ');
    merges.push_back({text.substr(0, space), text.substr(space + 1)});
  }
  Json vocab = Json::object();
  std::vector<std::pair<std::string, Json>> entries;
  for (const auto& [key, value] : file["model"]["vocab"].items()) entries.emplace_back(key, value);
  for (auto entry = entries.rbegin(); entry != entries.rend(); ++entry) {
    vocab[entry->first] = entry->second;
  }
  // Merges before the vocabulary, and every non-ASCII character escaped.
  file["model"] = {{"merges", merges}, {"type", "BPE"}, {"vocab", vocab}};
  const Tokenizer second =
      Tokenizer::parse("\xef\xbb\xbf" + file.dump(1, ' ', true) + "\n", "t.json", "");
  Dice rng(8);
  for (int i = 0; i < 200; ++i) {
    const std::string text = random_text(rng) + "abcaab \"\\ abc";
    REQUIRE(first.encode(text) == second.encode(text));
  }
}

TEST_CASE("added tokens: longest first, raw ones before normalized ones, strips") {
  Json file = small_tokenizer();
  file["added_tokens"] = {
      added_token("<x>", 261, true, false), added_token("<x>y", 262, false, false),
      added_token("z<x", 263, false, true), added_token("<p>", 264, true, false),
      added_token("ab", 256, false, true)};
  file["added_tokens"][3]["lstrip"] = true;
  file["added_tokens"][3]["rstrip"] = true;
  const Tokenizer tokenizer = parse(file);
  CHECK(tokenizer.vocab_size() == 265);
  CHECK(tokenizer.encode("<x>yq") == Ids{262, 'q'});
  CHECK(tokenizer.encode("<x><x>") == Ids{261, 261});
  CHECK(tokenizer.encode("z<x>") == Ids{'z', 261});  // raw tokens are cut first
  CHECK(tokenizer.encode("z<x ") == Ids{263, ' '});
  CHECK(tokenizer.encode("<x") == Ids{'<', 'x'});
  CHECK(tokenizer.encode("abc") == Ids{256, 'c'});  // the token "ab" is cut before BPE
  CHECK(tokenizer.decode({261, 262, 'q'}, true) == "<x>yq");
  const auto spans = tokenizer.encode_spans("q \u3000<p>\n r");
  REQUIRE(spans.size() == 3);
  CHECK(spans[1].id == 264);
  CHECK(spans[1].begin == 1);
  CHECK(spans[1].end == 10);
}

TEST_CASE("a prefix space has no bytes in the text") {
  Json file = small_tokenizer();
  file["pre_tokenizer"] = byte_level(true);
  const Tokenizer tokenizer = parse(file);
  CHECK(tokenizer.encode("ac") == Ids{259, 'c'});
  CHECK(tokenizer.encode(" ac") == Ids{259, 'c'});
  const auto spans = tokenizer.encode_spans("ac");
  REQUIRE(spans.size() == 2);
  CHECK(spans[0].begin == 0);
  CHECK(spans[0].end == 1);
  CHECK(spans[1].end == 2);
}

TEST_CASE("ignore_merges keeps a pre-token that is a token") {
  Json file = small_tokenizer();
  file["model"]["vocab"]["bca"] = 261;
  CHECK(parse(file).encode("bca") == Ids{258, 'a'});
  file["model"]["ignore_merges"] = true;
  CHECK(parse(file).encode("bca") == Ids{261});
}

TEST_CASE("files that are not supported or broken are refused by name") {
  CHECK(said(small_tokenizer()).empty());
  const auto changed = [](const std::function<void(Json&)>& change) {
    Json file = small_tokenizer();
    change(file);
    return said(file);
  };
  CHECK(has(changed([](Json& f) { f["model"]["type"] = "Unigram"; }), "Unigram"));
  CHECK(has(changed([](Json& f) {
              f["model"] = {{"type", "WordPiece"}, {"vocab", {"a"}}};
            }),
            "tokenizer kind not supported: WordPiece"));
  CHECK(has(changed([](Json& f) { f["model"]["byte_fallback"] = true; }), "SentencePiece"));
  CHECK(has(changed([](Json& f) { f["model"]["dropout"] = 0.1; }), "dropout"));
  CHECK(has(changed([](Json& f) { f["model"]["unk_token"] = "u"; }), "unk_token"));
  CHECK(has(changed([](Json& f) { f["model"]["end_of_word_suffix"] = "u"; }), "end_of_word"));
  CHECK(has(changed([](Json& f) { f["model"]["vocab"].erase("a"); }), "\"a\""));
  CHECK(has(changed([](Json& f) { f["model"]["vocab"].erase("x"); }), "0x78"));
  CHECK(has(changed([](Json& f) { f["model"]["vocab"]["zz"] = 5; }), "\"zz\" has the id 5"));
  CHECK(has(changed([](Json& f) { f["model"]["vocab"]["zz"] = 1000000; }), "proportion"));
  CHECK(has(changed([](Json& f) { f["model"]["vocab"]["zz"] = -1; }), "integer"));
  CHECK(has(changed([](Json& f) { f["model"]["vocab"]["zz"] = 300.5; }), "integer"));
  CHECK(has(changed([](Json& f) { f["model"]["vocab"][""] = 300; }), "empty text"));
  CHECK(has(changed([](Json& f) { f["model"]["merges"].push_back("ab"); }), "merge 5 is \"ab\""));
  CHECK(
      has(changed([](Json& f) { f["model"]["merges"].push_back("a z"); }), "merge 5 needs \"az\""));
  CHECK(has(changed([](Json& f) { f["model"].erase("merges"); }), "merges is missing"));
  CHECK(has(changed([](Json& f) { f.erase("model"); }), "\"model\" is missing"));
  CHECK(has(changed([](Json& f) { f["normalizer"] = {{"type", "NFC"}}; }), "NFC"));
  CHECK(has(changed([](Json& f) {
              f["normalizer"] = {{"type", "Sequence"}, {"normalizers", {{{"type", "Lowercase"}}}}};
            }),
            "Lowercase"));
  CHECK(changed([](Json& f) {
          f["normalizer"] = {{"type", "Sequence"}, {"normalizers", Json::array()}};
        }).empty());
  CHECK(has(changed([](Json& f) { f["decoder"] = {{"type", "Metaspace"}}; }), "Metaspace"));
  CHECK(has(changed([](Json& f) { f["decoder"] = nullptr; }), "ByteLevel"));
  CHECK(has(changed([](Json& f) { f["added_tokens"] = {added_token("ab", 300, true, false)}; }),
            "has the ids 256 and 300"));
  CHECK(has(changed([](Json& f) { f["added_tokens"] = {added_token("<x>", 5, true, false)}; }),
            "has the id 5"));
  CHECK(has(changed([](Json& f) {
              f["added_tokens"] = {added_token("<x>", 261, true, false)};
              f["added_tokens"][0]["single_word"] = true;
            }),
            "single_word"));

  const std::string whole = small_tokenizer().dump();
  for (std::size_t cut = 0; cut < whole.size(); cut += 1 + cut / 40) {
    CHECK(error_of([&] { Tokenizer::parse(whole.substr(0, cut), "t.json", ""); }).find("t.json") ==
          0);
  }
  CHECK(has(error_of([&] { Tokenizer::parse(whole + "]", "t.json", ""); }), "after the end"));
  CHECK(has(error_of([&] { Tokenizer::parse(whole + "\xff", "t.json", ""); }), "UTF-8"));
  CHECK(has(error_of([&] { Tokenizer::parse(std::string(1000, '['), "t.json", ""); }), "t.json"));
}

TEST_CASE("tokenizer_config.json") {
  const Json file = small_tokenizer();
  const Tokenizer plain = parse(file);
  CHECK(plain.bos_id() == -1);
  CHECK(plain.chat_template().empty());
  CHECK(plain.notes().empty());
  const Tokenizer tokenizer =
      parse(file, R"({"bos_token": {"content": "ab"}, "eos_token": "a", "pad_token": null,
                "add_bos_token": true, "tokenizer_class": "PreTrainedTokenizerFast",
                "chat_template": [{"name": "tool_use", "template": "T"},
                                  {"name": "default", "template": "D"}]})");
  CHECK(tokenizer.bos_id() == 256);
  CHECK(tokenizer.eos_id() == 'a');
  CHECK(tokenizer.pad_id() == -1);
  CHECK(tokenizer.adds_bos());
  CHECK(tokenizer.chat_template() == "D");
  CHECK(tokenizer.notes().size() == 1);
  const Tokenizer jinja = parse(file, R"({"chat_template": "C"})", "J");
  CHECK(jinja.chat_template() == "J");
  CHECK(jinja.notes().size() == 1);
  CHECK(has(said(file, R"({"bos_token": "nowhere"})"), "\"nowhere\""));
  CHECK(has(said(file, R"({"bos_token": 5})"), "bos_token"));
  CHECK(has(said(file, R"({"chat_template": 5})"), "chat_template"));
  CHECK(has(said(file, R"([])"), "object"));
  CHECK(
      has(said(file, R"({"added_tokens_decoder": {"300": {"content": "ab"}}})"), "its id is 256"));
  CHECK(said(file, R"({"added_tokens_decoder": {"256": {"content": "ab"}}})").empty());
}

TEST_CASE("folders without tokenizer.json name what they have") {
  const auto folder = make_temp_dir("tokenizer");
  CHECK(has(error_of([&] { Tokenizer::load(folder); }), "no tokenizer.json"));
  for (const auto& [name, kind] :
       std::vector<std::pair<const char*, const char*>>{{"vocab.txt", "WordPiece"},
                                                        {"tokenizer.model", "SentencePiece"},
                                                        {"tiktoken.model", "tiktoken"}}) {
    std::ofstream(folder / name) << "x";
    const std::string text = error_of([&] { Tokenizer::load(folder); });
    CHECK(has(text, "tokenizer kind not supported"));
    CHECK(has(text, kind));
  }
  std::ofstream(folder / "tokenizer.json") << small_tokenizer().dump();
  std::ofstream(folder / "chat_template.jinja") << "J";
  CHECK(Tokenizer::load(folder).chat_template() == "J");
  std::filesystem::remove_all(folder);
}
