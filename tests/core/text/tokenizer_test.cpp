#include "libcore/text/tokenizer.h"

#include <atomic>
#include <thread>

#include "libcore/base/hash.h"
#include "tests/core/text/text_fixture.h"

using namespace ds;
using namespace ds::test;

namespace {

std::string row_text(const Json& row) {
  if (row.contains("text")) return row["text"].get<std::string>();
  const auto hex = row["text_hex"].get<std::string>();
  std::string text;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return text;
}

// Encoding, spans and decoding of one row.
void check_row(const Tokenizer& tokenizer, const Json& row) {
  const std::string text = row_text(row);
  const auto wanted = row["ids"].get<std::vector<std::int32_t>>();
  CHECK_MESSAGE(tokenizer.encode(text) == wanted, row.dump(-1, ' ', true));
  CHECK(tokenizer.decode(wanted, false) == text);
  const std::vector<TokenSpan> spans = tokenizer.encode_spans(text);
  REQUIRE(spans.size() == wanted.size());
  std::size_t at = 0;
  for (std::size_t i = 0; i < spans.size(); ++i) {
    CHECK(spans[i].id == wanted[i]);
    CHECK(spans[i].begin == at);
    at = spans[i].end;
    CHECK(text.substr(spans[i].begin, spans[i].end - spans[i].begin) ==
          tokenizer.token_bytes(spans[i].id));
  }
  CHECK(at == text.size());
}

std::filesystem::path nano() { return source_dir() / "examples" / "nano-v3"; }

Tokenizer real_v3() { return Tokenizer::load(shared_dir() / "data" / "deepseek-v3-tokenizer"); }

}  // namespace

TEST_CASE("nano-v3: 300 vectors of the tokenizers library") {
  const Tokenizer tokenizer = Tokenizer::load(nano());
  const auto rows = read_rows(source_dir() / "tests" / "data" / "tokenizer_nano_v3.jsonl");
  CHECK(rows.size() == 300);
  for (const Json& row : rows) check_row(tokenizer, row);
  CHECK(tokenizer.vocab_size() == 4096);
  CHECK(tokenizer.added_tokens().size() == 20);
  CHECK(tokenizer.bos_id() == 0);
  CHECK(tokenizer.eos_id() == 1);
  CHECK(tokenizer.pad_id() == 1);
  CHECK(tokenizer.adds_bos());
  CHECK(tokenizer.id_of("<｜tool▁sep｜>") == 4095);
  CHECK(tokenizer.id_of("<|User|>") == -1);
  CHECK(tokenizer.chat_template().size() == 2925);
  REQUIRE(tokenizer.notes().size() == 2);
  CHECK(tokenizer.notes()[0].find("LlamaTokenizerFast") != std::string::npos);
  CHECK(tokenizer.notes()[1].find("pad_token") != std::string::npos);
}

TEST_CASE("DeepSeek-V3: all vectors and llama.cpp's fingerprint") {
  if (shared_dir().empty()) {
    MESSAGE("skipped: no ../shared");
    return;
  }
  const Tokenizer tokenizer = real_v3();
  CHECK(tokenizer.vocab_size() == 128815);
  CHECK(tokenizer.added_tokens().size() == 818);
  CHECK(tokenizer.id_of("<|EOT|>") == 128805);
  CHECK(tokenizer.bos_id() == 0);
  CHECK(tokenizer.eos_id() == 1);
  const auto folder = shared_dir() / "goldens" / "text";
  std::size_t rows = 0;
  for (const char* file : {"tokenizer_vectors_v3.jsonl", "tokenizer_vectors_random.jsonl"}) {
    for (const Json& row : read_rows(folder / file)) {
      check_row(tokenizer, row);
      ++rows;
    }
  }
  MESSAGE(rows << " vectors");
  CHECK(rows >= 346);
  const auto text = Json::parse(read_text(folder / "chktxt.json")).get<std::string>();
  const std::vector<std::int32_t> ids = tokenizer.encode(text);
  CHECK(ids.size() == 162);
  std::string list = "[0";
  for (const std::int32_t id : ids) list += ", " + std::to_string(id);
  CHECK(sha256(list + "]") == "877081d19cf6996e2c4ff0e1236341e9b7bde288f5311a56a937f0afbbb3aeb5");

  // reference/text.md section 1.
  using Ids = std::vector<std::int32_t>;
  CHECK(tokenizer.encode("") == Ids{});
  CHECK(tokenizer.encode("\n") == Ids{201});
  CHECK(tokenizer.encode("\n\n") == Ids{271});
  CHECK(tokenizer.encode("\n\n\n") == Ids{6328});
  CHECK(tokenizer.encode("Hello, world!") == Ids{19923, 14, 2058, 3});
  CHECK(tokenizer.encode("    Hello") == Ids{361, 45948});
  CHECK(tokenizer.encode("3333") == Ids{11722, 21});
  CHECK(tokenizer.encode("!!!!!!") == Ids{27656, 6909});
  CHECK(tokenizer.encode("' era") == Ids{9, 9861});
  CHECK(tokenizer.encode("Äpfel") == Ids{38857, 33015, 317});
}

TEST_CASE("decoding gives back what was encoded") {
  std::vector<Tokenizer> tokenizers;
  tokenizers.push_back(Tokenizer::load(nano()));
  if (!shared_dir().empty()) tokenizers.push_back(real_v3());
  Dice rng(20);
  for (const Tokenizer& tokenizer : tokenizers) {
    for (int i = 0; i < 2000; ++i) {
      const std::string text = random_text(rng);
      REQUIRE(tokenizer.decode(tokenizer.encode(text), false) == text);
    }
  }
}

TEST_CASE("decoding of cut sequences, unknown and special ids") {
  const Tokenizer tokenizer = Tokenizer::load(nano());
  const auto byte = [&](unsigned value) {
    return tokenizer.encode(std::string(1, static_cast<char>(value)))[0];
  };
  const std::string replacement = "\xef\xbf\xbd";
  CHECK(tokenizer.decode({byte(0xe4), byte(0xbd)}, false) == replacement);
  CHECK(tokenizer.decode({byte(0xe4), byte(0xbd), byte(0xa0)}, false) == "你");
  CHECK(tokenizer.decode({byte(0xe4), byte('a'), byte(0x80)}, false) ==
        replacement + "a" + replacement);
  CHECK(tokenizer.decode({byte(0xf0), byte(0x9f), byte(0x98), byte(0xff)}, false) ==
        replacement + replacement);
  CHECK(tokenizer.decode({byte(0xed), byte(0xa0), byte(0x80)}, false) ==
        replacement + replacement + replacement);
  CHECK(tokenizer.decode({-1, 1 << 30, byte('x')}, false) == "x");
  const std::vector<std::int32_t> ids = {0, byte('x'), tokenizer.id_of("<｜User｜>"), 1};
  CHECK(tokenizer.decode(ids, false) == "<｜begin▁of▁sentence｜>x<｜User｜><｜end▁of▁sentence｜>");
  CHECK(tokenizer.decode(ids, true) == "x<｜User｜>");  // not special
  CHECK(tokenizer.token_bytes(-1).empty());
  CHECK(tokenizer.token_bytes(4096).empty());
}

TEST_CASE("bytes that are no UTF-8 become tokens of single bytes") {
  const Tokenizer tokenizer = Tokenizer::load(nano());
  const std::string text = "ab\xff<｜User｜>\xe4\xbd cd\xc3";
  const std::vector<TokenSpan> spans = tokenizer.encode_spans(text);
  std::string bytes;
  for (const TokenSpan& span : spans) {
    CHECK(text.substr(span.begin, span.end - span.begin) == tokenizer.token_bytes(span.id));
    bytes += tokenizer.token_bytes(span.id);
  }
  CHECK(bytes == text);
  CHECK(tokenizer.encode(text).size() == spans.size());
}

TEST_CASE("several threads get the ids of one") {
  const Tokenizer tokenizer = Tokenizer::load(nano());
  Dice rng(4);
  std::vector<std::string> texts;
  std::vector<std::vector<std::int32_t>> wanted;
  for (int i = 0; i < 200; ++i) {
    texts.push_back(random_text(rng));
    wanted.push_back(tokenizer.encode(texts.back()));
  }
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (std::size_t t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      for (std::size_t i = 0; i < texts.size(); ++i) {
        const std::size_t at = (i * 7 + t * 31) % texts.size();
        if (tokenizer.encode(texts[at]) != wanted[at]) ++wrong;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  CHECK(wrong == 0);
}
