// Inputs that make back-tracking or quadratic code blow up. The same work split in two must not
// take much less time; limits are generous, a quadratic step would exceed them a hundredfold.
#include <ctime>

#include "libcore/text/tokenizer.h"
#include "tests/core/text/text_fixture.h"

using namespace ds;
using namespace ds::test;

namespace {

// Processor seconds, so that a busy machine does not matter.
double seconds(const std::function<void()>& action) {
  const std::clock_t start = std::clock();
  action();
  return static_cast<double>(std::clock() - start) / CLOCKS_PER_SEC;
}

std::string repeat(std::string_view text, std::size_t bytes) {
  std::string out;
  while (out.size() < bytes) out += text;
  return out;
}

}  // namespace

TEST_CASE("long runs take linear time and decode to themselves") {
  const Tokenizer tokenizer = Tokenizer::load(source_dir() / "examples" / "nano-v3");
  const std::vector<std::string> units = {
      " ",  "\n",         " \n",     "\r\n", "\t",       "a",
      "A",  "ab",         "1",       "!",    "'s",       "字",
      "é",  "̈",           "\\n",     "\x1c", "\u0085",   "🚀",
      " a", "<｜User｜>", "<｜User", "<",    "a1 ,字\n", "Hello world 你好 123.45 — naïve\t\u3000"};
  for (const std::string& unit : units) {
    const std::string tail = "x";
    const std::string text = repeat(unit, 100'000) + tail;
    std::vector<std::int32_t> ids;
    const double time = seconds([&] { ids = tokenizer.encode(text); });
    CHECK_MESSAGE(time < 5.0, unit);
    CHECK(tokenizer.decode(ids, false) == text);
  }
}

TEST_CASE("one line of a megabyte") {
  const Tokenizer tokenizer = Tokenizer::load(source_dir() / "examples" / "nano-v3");
  const std::string text = repeat(
      "The 3 quick brown foxes, 你好世界！ naïve  café 1234567 <｜User｜> {\"a\": [1, 2]} 🚀 ",
      1'000'000);
  std::vector<std::int32_t> ids;
  const double time = seconds([&] { ids = tokenizer.encode(text); });
  CHECK(time < 5.0);
  CHECK(tokenizer.decode(ids, false) == text);
}

TEST_CASE("the search \\s+$ of V2's file is linear") {
  Json file = small_tokenizer();
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Split"},
                              {"pattern", {{"Regex", "\\s+$"}}},
                              {"behavior", "Isolated"},
                              {"invert", false}},
                             byte_level()}}};
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "t.json", "");
  const std::string text = repeat(" ", 300'000) + "x";
  std::vector<std::int32_t> ids;
  CHECK(seconds([&] { ids = tokenizer.encode(text); }) < 5.0);
  CHECK(tokenizer.decode(ids, false) == text);
}

TEST_CASE("a pattern that backtracks without end is an error, not a wrong answer") {
  Json file = small_tokenizer();
  file["pre_tokenizer"] = {{"type", "Sequence"},
                           {"pretokenizers",
                            {{{"type", "Split"},
                              {"pattern", {{"Regex", "(?:a+a+)+[b-d]"}}},
                              {"behavior", "Isolated"},
                              {"invert", false}},
                             byte_level()}}};
  const Tokenizer tokenizer = Tokenizer::parse(file.dump(), "t.json", "");
  CHECK(tokenizer.encode("xaab").size() > 1);
  const std::string said = error_of([&] { tokenizer.encode(std::string(60, 'a')); });
  CHECK(said.find("pre_tokenizer.pretokenizers[0]") != std::string::npos);
  CHECK(said.find("60 bytes") != std::string::npos);
}
