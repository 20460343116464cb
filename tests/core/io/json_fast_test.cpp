// The quick parser against the one with words: the same values, and never more accepted.
#include "libcore/io/json_fast.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <random>
#include <string>

#include "libcore/base/json.h"
#include "libcore/base/utf8.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

// Whether it was parsed the quick way; what it gave must be what the other parser gives, in new
// memory and in that of all the texts before.
bool check(const std::string& text) {
  static Json used;
  Json fast, slow;
  const bool again = parse_json_fast(text, used);
  REQUIRE(parse_json_fast(text, fast) == again);
  if (!again) return false;
  CAPTURE(text);
  const auto problem = try_parse_json(text, true, slow);
  REQUIRE_MESSAGE(!problem.has_value(), problem->reason);
  CHECK(fast == slow);
  CHECK(fast.dump() == slow.dump());
  CHECK(fast.type() == slow.type());
  CHECK(used == slow);
  CHECK(used.dump() == slow.dump());
  return true;
}

}  // namespace

TEST_CASE("fast rows: common values are parsed, with their types") {
  for (const char* text :
       {"{}",
        "[]",
        " { } ",
        "[ ]",
        "\"\"",
        "null",
        "true",
        "false",
        "0",
        "-0",
        "-1",
        "1",
        "123456",
        "1.5",
        "-0.25e-3",
        "1E5",
        "1e+5",
        "0.1",
        "999999999999999999",
        R"({"a": [1, -2, 3.5, "x", null, {"b": {}}], "c": "\u00e9\ud83d\ude00\n\\\"\/"})",
        "{\"z\":1,\"a\":2,\"m\":3}",
        "\"\xc3\xa9\x7f\xf0\x9f\x98\x80\"",
        "\t[\r\n1 ,\n2]\n"}) {
    CHECK_MESSAGE(check(text), text);
  }
  Json value;
  REQUIRE(parse_json_fast("[1,-1]", value));
  CHECK(value[0].is_number_unsigned());
  CHECK_FALSE(value[1].is_number_unsigned());
}

TEST_CASE("fast rows: the memory of an earlier row") {
  for (const char* text :
       {R"({"a": [{"x": "1", "y": 2}, {"x": "3", "y": 4}], "b": "long enough for a heap"})",
        R"({"a": [{"x": "5", "y": 6}], "b": "short"})", R"({"a": [{"y": 6, "x": "5"}], "b": 1})",
        R"({"a": [], "b": null})", R"({"b": null, "a": []})", R"({"a": {"0": 1}})", R"({"a\\": 1})",
        R"({"a\\": 2})", R"({"a": 2})", R"({"ab": 2})", R"({"a": 2, "c": 3})", R"({"a": 2})",
        R"({})", R"([{}])", R"(["a", {"b": [[1]]}])", R"([{"b": [[1, 2], []]}])", R"("text")",
        R"(7)"}) {
    CHECK_MESSAGE(check(text), std::string(text));
  }
  CHECK(check(R"({"c": 1, "d": 1})"));
  CHECK_FALSE(check(R"({"c": 1, "c": 1})"));
  CHECK(check(R"({"c": 1, "d": 1})"));
}

TEST_CASE("fast rows: what is not plain is left to the other parser") {
  for (const char* text : {"",
                           " ",
                           "{",
                           "[",
                           "\"",
                           "\"a",
                           "01",
                           "-",
                           "1.",
                           ".5",
                           "1e",
                           "+1",
                           "nul",
                           "tru",
                           "[1,]",
                           "{\"a\":1,}",
                           "{\"a\" 1}",
                           "{a:1}",
                           "[1 2]",
                           "{} {}",
                           "\"\n\"",
                           "\"\\x\"",
                           "\"\\u12\"",
                           "\"\\ud800\"",
                           "\"\\udc00\"",
                           "1e999",
                           "{\"a\":1,\"a\":2}",
                           "12345678901234567890",
                           "\"\\u12g4\"",
                           "NaN",
                           "'a'",
                           "\"\x01\""}) {
    Json value;
    CHECK_MESSAGE(!parse_json_fast(text, value), text);
  }
  const std::string deep = std::string(100, '[') + std::string(100, ']');
  CHECK_FALSE(check(deep));
}

TEST_CASE("fast rows: the plain prefix, at every offset") {
  for (const char stop : {'"', '\\', '\n', '\x1f', '\0'}) {
    for (std::size_t at = 0; at < 100; ++at) {
      std::string text(100, '\xff');
      for (std::size_t i = 0; i < at; ++i) text[i] = " !#[]\x7f\x80\xa2\xdc\xff"[i % 10];
      text[at] = stop;
      CHECK(json_plain_prefix(text.substr(0, at)) == at);
      for (std::size_t size = at + 1; size <= text.size(); ++size) {
        CHECK(json_plain_prefix(std::string_view(text).substr(0, size)) == at);
      }
    }
  }
}

TEST_CASE("fast rows: random mutations give what the other parser gives") {
  std::mt19937 random(7);
  const std::string seed =
      R"({"messages": [{"role": "user", "content": "a\u00e9\ud83d\ude00\n"}, 1.5e3, -7, [true, )"
      R"(false, null], {"k": {}, "l": []}], "tools": "[{\"x\": 0.1}]"})";
  const std::string bytes = "{}[]\",:\\u0123eE+-. tfn\n\x80\xc3\xa9";
  std::size_t parsed = 0;
  for (int i = 0; i < 200000; ++i) {
    std::string text = seed;
    for (unsigned n = random() % 3; n < 3; ++n) {
      const std::size_t at = random() % text.size();
      if (random() % 2 == 0) {
        text.erase(at, 1 + random() % 3);
      } else {
        text.insert(at, 1, bytes[random() % bytes.size()]);
      }
    }
    if (utf8_error(text) == kUtf8Valid && check(text)) ++parsed;
  }
  CHECK(parsed > 1000);
}

}  // namespace ds
