#include "libcore/io/jsonl.h"

#include <doctest/doctest.h>

#include <chrono>
#include <nlohmann/json.hpp>
#include <random>
#include <vector>

#include "libcore/base/atomic_write.h"
#include "tests/core/io/io_fixtures.h"
#include "tests/support/paths.h"

namespace fs = std::filesystem;
using namespace ds;
using nlohmann::json;
using test::contains;

namespace {

struct Read {
  json value;
  JsonRow row;
};

std::vector<Read> read_all(const std::string& text,
                           EncodingPolicy policy = EncodingPolicy::kError) {
  JsonRowReader reader(std::string_view(text), "f", policy);
  std::vector<Read> rows;
  Read read;
  while (reader.next(read.value, read.row)) {
    // Views must point into the text given.
    if (!read.row.text.empty()) {
      CHECK(read.row.text.data() >= text.data());
      CHECK(read.row.text.data() + read.row.text.size() <= text.data() + text.size());
    }
    rows.push_back(read);
    REQUIRE(rows.size() <= text.size());
  }
  CHECK_FALSE(reader.next(read.value, read.row));
  return rows;
}

// "1:5 reason" of each bad row, its value of each good one.
std::vector<std::string> summary(const std::string& text,
                                 EncodingPolicy policy = EncodingPolicy::kError) {
  std::vector<std::string> all;
  for (const Read& read : read_all(text, policy)) {
    all.push_back(std::to_string(read.row.line) + ":" +
                  (read.row.good() ? read.value.dump()
                                   : std::to_string(read.row.column) + " " + read.row.reason));
  }
  return all;
}

using Lines = std::vector<std::string>;

}  // namespace

TEST_CASE("rows: lines, with every kind of line end, blank lines and byte order mark") {
  const Lines expected = {"1:{\"a\":1}", "2:{\"a\":2}"};
  CHECK(summary("{\"a\":1}\n{\"a\":2}\n") == expected);
  CHECK(summary("{\"a\":1}\n{\"a\":2}") == expected);
  CHECK(summary("{\"a\":1}\r\n{\"a\":2}\r\n") == expected);
  CHECK(summary("\xef\xbb\xbf{\"a\":1}\n{\"a\":2}\n") == expected);
  CHECK(summary("\n\n  {\"a\":1}  \r\n\r\n \t\n{\"a\":2}\n\n") ==
        Lines{"3:{\"a\":1}", "6:{\"a\":2}"});
  CHECK(summary("1\n\"x\"\nnull\ntrue\n") == Lines{"1:1", "2:\"x\"", "3:null", "4:true"});
  CHECK(summary("{\"a\":1,\"a\":2}") == Lines{"1:{\"a\":2}"});
}

TEST_CASE("rows: a bad line is that line's problem only") {
  const auto rows = summary(
      "{\"a\":1}\n{\"a\":}\n{\"a\":1,}\n{\"a\":\"x\n{\"a\":2} {\"b\":3}\nnope\n{\"a\":1e999}\n"
      "{\"ok\":[1,{}]}\n");
  REQUIRE(rows.size() == 8);
  CHECK(rows[0] == "1:{\"a\":1}");
  CHECK(contains(rows[1], "2:6 "));
  CHECK(contains(rows[2], "3:8 "));
  CHECK(contains(rows[3], "4:8 "));
  CHECK(contains(rows[4], "5:9 "));
  CHECK(contains(rows[5], "6:2 "));
  CHECK(contains(rows[6], "too large for a double"));
  CHECK(rows[7] == "8:{\"ok\":[1,{}]}");
  const std::string text = "{\"a\":1}\n  {bad}  \r\n";
  const auto read = read_all(text);
  CHECK(read[1].row.text == "{bad}");
  CHECK(read[1].value.is_null());
  CHECK_FALSE(read[1].row.encoding);
  CHECK(contains(summary("{\n  \"a\": 1\n}\n")[0], "rows that span lines must be in an array"));
}

TEST_CASE("rows: files that are empty or not UTF-8 throughout") {
  for (const char* text : {"", "  \n\r\n", "\xef\xbb\xbf", "\xef\xbb\xbf \n"}) {
    CHECK(contains(test::bad_input([&] { read_all(text); }), "no rows"));
  }
  const auto error = [](const std::string& text) {
    return test::bad_input([&] { read_all(text); });
  };
  CHECK(contains(error(std::string("\xff\xfe{\0", 4)), "UTF-16LE"));
  CHECK(contains(error(std::string("\xfe\xff\0{", 4)), "UTF-16BE"));
  CHECK(contains(error(std::string("{\0\"\0", 4)), "UTF-16LE"));
  CHECK(contains(error(std::string("\0[\0{", 4)), "UTF-16BE"));
  const fs::path dir = test::make_temp_dir("rows");
  CHECK_THROWS_AS(JsonRowReader(dir / "absent", EncodingPolicy::kError), Error);
  write_file(dir / "empty", "");
  CHECK(contains(test::bad_input([&] { JsonRowReader(dir / "empty", EncodingPolicy::kError); }),
                 "empty: the file has no rows"));
  write_file(dir / "f", "[1,\n2]");
  JsonRowReader reader(dir / "f", EncodingPolicy::kError);
  CHECK(reader.is_array());
  CHECK(reader.size() == 6);
  json value;
  JsonRow row;
  CHECK(reader.next(value, row));
  CHECK(reader.next(value, row));
  CHECK(value == 2);
  CHECK(row.line == 2);
  CHECK_FALSE(reader.next(value, row));
  CHECK(reader.position() == 6);
  fs::remove_all(dir);
}

TEST_CASE("rows: invalid UTF-8 by policy, with line, column and byte offset") {
  const std::string text =
      "{\"a\":\"x\"}\n{\"a\":\"b\xff"
      "c\"}\n{\"a\":\"y\"}\n";
  for (const EncodingPolicy policy : {EncodingPolicy::kError, EncodingPolicy::kSkip}) {
    const auto rows = read_all(text, policy);
    REQUIRE(rows.size() == 3);
    CHECK_FALSE(rows[1].row.good());
    CHECK(rows[1].row.encoding);
    CHECK(rows[1].row.line == 2);
    CHECK(rows[1].row.column == 8);
    CHECK(rows[1].row.reason == "invalid UTF-8: byte 0xFF at byte offset 17 of the file");
    CHECK(rows[2].row.good());
  }
  const auto rows = read_all(text, EncodingPolicy::kReplace);
  REQUIRE(rows.size() == 3);
  CHECK(rows[1].row.good());
  CHECK(rows[1].row.repaired);
  CHECK(contains(rows[1].row.reason, "0xFF"));
  CHECK(rows[1].value["a"] ==
        "b\xef\xbf\xbd"
        "c");
  CHECK_FALSE(rows[0].row.repaired);
  CHECK(rows[0].row.reason.empty());
  // Repaired, but still no JSON.
  const auto broken = read_all("{\"a\":\"\xff\"", EncodingPolicy::kReplace);
  CHECK_FALSE(broken[0].row.good());
  CHECK_FALSE(broken[0].row.repaired);
}

TEST_CASE("rows: a GBK file is named as such, one broken byte in UTF-8 Chinese is not") {
  const auto gbk =
      read_all("{\"q\":\"\xd6\xd0\xce\xc4\xb2\xe2\xca\xd4\"}\n{\"q\":\"\xba\xc3\xb5\xc4\"}");
  CHECK(contains(gbk[0].row.reason, "byte 0xD6 at byte offset 6"));
  CHECK(contains(gbk[0].row.reason, "GBK"));
  CHECK(contains(gbk[1].row.reason, "GBK"));
  CHECK(gbk[1].row.line == 2);
  const auto utf8 = read_all("{\"q\":\"\xe4\xb8\xad\xe6\x96\xe6\xb5\x8b\xe8\xaf\x95\"}");
  CHECK(utf8[0].row.encoding);
  CHECK_FALSE(contains(utf8[0].row.reason, "GBK"));
}

TEST_CASE("rows: lone surrogate escapes by policy") {
  const std::string text = R"({"a":"\ud83d\ude00"}
{"a":"x\ud83dy"}
{"a":"\ude00\ud83d\u0041\ud83d\ud83d\ude00"}
{"a":"\\ud83d"}
{"a":"\ud83d"}
)";
  const auto strict = read_all(text);
  REQUIRE(strict.size() == 5);
  CHECK(strict[0].value["a"] == "\xf0\x9f\x98\x80");
  CHECK(strict[1].row.encoding);
  CHECK(strict[1].row.column == 8);
  CHECK(contains(strict[1].row.reason, "lone surrogate escape \"\\ud83d\""));
  CHECK(strict[2].row.column == 7);
  CHECK(strict[3].value["a"] == "\\ud83d");
  CHECK_FALSE(strict[4].row.good());
  const auto loose = read_all(text, EncodingPolicy::kReplace);
  const std::string r = "\xef\xbf\xbd";
  CHECK(loose[1].value["a"] == "x" + r + "y");
  CHECK(loose[1].row.repaired);
  CHECK(loose[2].value["a"] == r + r + "A" + r + "\xf0\x9f\x98\x80");
  CHECK_FALSE(loose[3].row.repaired);
  CHECK(loose[4].value["a"] == r);
  // Both kinds in one row.
  const auto both = read_all("{\"a\":\"\xff\\ud800\"}", EncodingPolicy::kReplace);
  CHECK(both[0].value["a"] == r + r);
}

TEST_CASE("rows: arrays") {
  CHECK(summary("[]").empty());
  CHECK(summary(" [ \n ] \n").empty());
  CHECK(summary("\xef\xbb\xbf[{\"a\":1},\r\n{\"a\":\"]},[\\\"\"}\n,\n 3 , [[],{\"b\":[1]}]\n]\n") ==
        Lines{"1:{\"a\":1}", "2:{\"a\":\"]},[\\\"\"}", "4:3", "4:[[],{\"b\":[1]}]"});
  CHECK(summary("[\n  {\n    \"a\": 1,\n    \"b\": [\n      2\n    ]\n  },\n  {}\n]") ==
        Lines{"2:{\"a\":1,\"b\":[2]}", "8:{}"});
}

TEST_CASE("rows: in an array a bad element is that row's problem where its extent is clear") {
  const auto rows =
      summary("[{\"a\":1},\n nope,\n {\"a\":}, {\"a\":1,},\n{\"a\" 1\n},\n{\"ok\":2},]");
  REQUIRE(rows.size() == 7);
  CHECK(rows[0] == "1:{\"a\":1}");
  CHECK(contains(rows[1], "2:3 "));
  CHECK(contains(rows[2], "3:7 "));
  CHECK(contains(rows[3], "3:17 "));
  CHECK(contains(rows[4], "4:6 "));
  CHECK(rows[5] == "6:{\"ok\":2}");
  CHECK(contains(rows[6], "6:10 a comma before the closing ']'"));
  // A problem on a later line of an element.
  const auto later = summary("[{\"a\":\n\n  oops},{}]");
  CHECK(contains(later[0], "1:3 "));
  CHECK(contains(later[0], "(on line 3)"));
  CHECK(later[1] == "3:{}");
  CHECK(contains(summary("[1,,2]")[1], "an element is missing"));
  CHECK(summary("[1,,2]")[2] == "1:2");
  CHECK(contains(summary("[,]")[0], "an element is missing"));
}

TEST_CASE("rows: in an array with unbalanced brackets or quotes reading stops and says so") {
  const auto last = [](const std::string& text) { return summary(text).back(); };
  for (const char* text : {"[{\"a\":1}, {\"a\":[1}, {\"b\":2}]", "[1, }, 2]", "[{\"a\":1]}"}) {
    CAPTURE(text);
    CHECK(contains(last(text), "brackets do not match"));
    CHECK(contains(last(text), "nothing after it can be read"));
  }
  CHECK(
      contains(last("[{\"a\":1},\n{\"a\":\"x},\n{\"b\":2}]"), "2:6 a string without its closing"));
  CHECK(contains(last("[{\"a\":\"x\ny\"}]"), "line break inside"));
  for (const char* text : {"[", "[1", "[1,", "[1, {", "[{\"a\":1}\n", "[\"abc", "[\"abc\\", "[["}) {
    CAPTURE(text);
    CHECK(contains(last(text), "nothing after it can be read"));
  }
  CHECK(contains(last("[1] 2"), "1:5 text after the closing ']'"));
  CHECK(contains(last("[1]\n[2]"), "2:1 text after the closing ']'"));
  CHECK(summary("[1]\n[2]\n[3]").size() == 2);
}

TEST_CASE("rows: nesting cannot overflow the stack, and the next row is read") {
  const std::string deep = std::string(2000000, '[') + std::string(2000000, ']');
  const auto lines = summary("1\n" + std::string("{\"a\":") + deep + "}\n3\n");
  REQUIRE(lines.size() == 3);
  CHECK(contains(lines[1], "nested deeper than 256"));
  CHECK(lines[2] == "3:3");
  const auto elements = summary("[1,{\"a\":" + deep + "},3]");
  REQUIRE(elements.size() == 3);
  CHECK(contains(elements[1], "nested deeper than 256"));
  CHECK(elements[2] == "1:3");
  CHECK(contains(summary("[" + std::string(5000000, '{')).back(), "the file ends inside"));
}

TEST_CASE("rows: order of keys is kept on request") {
  JsonRowReader reader(std::string_view("{\"b\":1,\"a\":{\"d\":2,\"c\":3},\"b\":4}"), "f",
                       EncodingPolicy::kError);
  nlohmann::ordered_json value;
  JsonRow row;
  REQUIRE(reader.next(value, row));
  CHECK(value.dump() == "{\"b\":4,\"a\":{\"d\":2,\"c\":3}}");
}

TEST_CASE("rows: random mutations end, stay in order and never crash") {
  const std::string lines =
      "{\"a\":\"\xe4\xb8\xad\\ud83d\\ude00\",\"b\":[1,2.5e3,{}]}\n{\"c\":null}\r\n\n{\"d\":\"x\"}"
      "\n";
  const std::string array =
      "[{\"a\":\"\xe4\xb8\xad\\\"\",\"b\":[1,{}]},\n{\"c\":\"]\"},\n {\"d\":true}\n]\n";
  std::mt19937_64 random(7);
  const std::string alphabet = "{}[]\",:\\ud0189eE.- \n\r\x00\xff\x80\xe4";
  std::size_t good = 0;
  std::size_t bad = 0;
  for (int round = 0; round < 200000; ++round) {
    std::string text = round % 2 == 0 ? lines : array;
    for (std::size_t edits = 1 + random() % 3; edits > 0 && !text.empty(); --edits) {
      const std::size_t at = random() % text.size();
      switch (random() % 4) {
        case 0:
          text.erase(at, 1 + random() % 5);
          break;
        case 1:
          text.insert(at, 1, alphabet[random() % alphabet.size()]);
          break;
        case 2:
          text.resize(at);
          break;
        default:
          text[at] = alphabet[random() % alphabet.size()];
      }
    }
    const auto policy = static_cast<EncodingPolicy>(round % 3);
    try {
      JsonRowReader reader(std::string_view(text), "f", policy);
      json value;
      JsonRow row;
      std::int64_t line = 1;
      std::size_t count = 0;
      while (reader.next(value, row)) {
        if (row.line < line || row.column < 0 || ++count > text.size() + 1) FAIL("order of rows");
        line = row.line;
        if (row.good()) {
          ++good;
          if (value.dump().empty()) FAIL("no value");
        } else {
          ++bad;
        }
      }
    } catch (const Error& error) {
      if (error.code() != ExitCode::kBadInput) FAIL(error.what());
    }
  }
  MESSAGE("200,000 mutated files: " << good << " good rows, " << bad << " bad rows");
  CHECK(good > 0);
  CHECK(bad > 0);
}

TEST_CASE("rows: speed") {
  std::string text;
  while (text.size() < (32u << 20)) {
    text +=
        "{\"instruction\":\"Explain \xe4\xb8\xad\xe6\x96\x87 "
        "briefly\",\"input\":\"\",\"output\":\"" +
        std::string(700, 'a') + "\"}\n";
  }
  for (const bool array : {false, true}) {
    std::string all = text;
    if (array) {
      for (char& c : all) c = c == '\n' ? ',' : c;
      all.back() = ']';
      all.insert(0, 1, '[');
    }
    const auto start = std::chrono::steady_clock::now();
    JsonRowReader reader(std::string_view(all), "f", EncodingPolicy::kError);
    json value;
    JsonRow row;
    std::size_t rows = 0;
    while (reader.next(value, row)) rows += row.good() ? 1 : 0;
    const double seconds =
        std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    CHECK(rows > 30000);
    MESSAGE((array ? "array: " : "lines: ")
            << static_cast<double>(all.size()) / seconds / 1e6 << " MB/s");
  }
}
