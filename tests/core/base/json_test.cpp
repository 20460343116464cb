#include "libcore/base/json.h"

#include <doctest/doctest.h>

#include <cmath>
#include <functional>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "tests/support/paths.h"

namespace fs = std::filesystem;
using namespace ds;
using nlohmann::json;

namespace {

std::string error_of(const std::string& text) {
  try {
    parse_json_text(text, "f.json");
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kBadInput);
    return error.what();
  }
  return "";
}

std::string error_of(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    CHECK(error.code() == ExitCode::kBadInput);
    return error.what();
  }
  return "";
}

bool has(const std::string& text, const std::string& part) {
  if (text.find(part) != std::string::npos) return true;
  MESSAGE("not in: " << text);
  return false;
}

}  // namespace

TEST_CASE("json: documents come back as nlohmann's own parser reads them") {
  for (const char* text :
       {"{}", "[]", "null", " 1 ", "-0.5e3", "\"a\\u00e9\\ud83d\\ude00\"",
        R"({"a":[1,{"b":[]},[[]],{}],"c":{"d":{"e":null}},"f":true,"g":"x"})",
        R"([[1,2],[3,[4,[5]]],{"a":[{"b":1},{"b":2}]}])", "18446744073709551615",
        "-9223372036854775808", "123456789012345678901234567890", "[1.5,2,-3]"}) {
    CAPTURE(text);
    CHECK(parse_json_text(text, "t") == json::parse(text));
  }
  CHECK(parse_json_text("\xef\xbb\xbf{\"a\":1}", "t")["a"] == 1);
}

TEST_CASE("json: problems name line and column") {
  CHECK(has(error_of("{\n  \"a\": nul\n}"), "f.json: line 2, column 11: "));
  CHECK(has(error_of("{\n  \"a\": 1,\n  \"b\": 2,\n}"), "f.json: line 4, column 1: "));
  CHECK(has(error_of("{\"a\":1,\"b\":{\"c\":1,\n\"c\":2}}"), "line 2, column 3: "));
  CHECK(has(error_of("{\"a\":1,\"b\":{\"c\":1,\n\"c\":2}}"), "\"c\" is there twice"));
  CHECK(has(error_of("[1] x"), "line 1, column 5"));
  CHECK(has(error_of("[1"), "line 1, column 3"));
  CHECK(has(error_of(""), "empty"));
  CHECK(has(error_of(std::string("{}\0 junk", 8)), "line 1, column 3: a zero byte"));
  CHECK(has(error_of(std::string("[1,\0", 5)), "line 1, column 4: "));
  CHECK(has(error_of("\"a\xff\""), "invalid"));
  CHECK(has(error_of("1e999"), "too large"));
  CHECK(has(error_of("\"\\ud800\""), "surrogate"));
  CHECK(error_of("[" + std::string(100000, 'q') + "]").size() < 600);
}

TEST_CASE("json: nesting is limited and cannot overflow the stack") {
  const auto nested = [](std::size_t depth) {
    return std::string(depth, '[') + std::string(depth, ']');
  };
  CHECK(parse_json_text(nested(256), "t").is_array());
  CHECK(has(error_of(nested(257)), "line 1, column 257: nested deeper than 256"));
  CHECK(has(error_of(nested(3000000)), "nested deeper than 256"));
  std::string objects;
  for (int i = 0; i < 257; ++i) objects += "{\"a\":";
  CHECK(has(error_of(objects), "nested deeper than 256"));
}

TEST_CASE("json: files") {
  const fs::path dir = test::make_temp_dir("json");
  write_file(dir / "a.json", "{\"x\": [1, 2]}\n");
  CHECK(parse_json_file(dir / "a.json")["x"][1] == 2);
  write_file(dir / "b.json", "{\"x\": }");
  CHECK(has(error_of([&] { parse_json_file(dir / "b.json"); }), "b.json: line 1, column 7: "));
  write_file(dir / "c.json", "");
  CHECK(has(error_of([&] { parse_json_file(dir / "c.json"); }), "c.json: the file is empty"));
  CHECK_THROWS_AS(parse_json_file(dir / "absent.json"), Error);
  fs::remove_all(dir);
}

TEST_CASE("json object: typed access names file, key path, value and need") {
  const json value = json::parse(R"({"i":4,"f":4.0,"h":4.5,"s":"text","b":true,"n":null,
      "big":18446744073709551615,"o":{"i":"x","p":{"q":[1]}},"hidden_size":1})");
  const JsonObject object(value, "config.json");
  CHECK(object.integer("i") == 4);
  CHECK(object.integer("f") == 4);
  CHECK(object.integer("absent", 7) == 7);
  CHECK(object.integer("n", 7) == 7);
  CHECK(object.number("i") == 4.0);
  CHECK(object.number("h") == 4.5);
  CHECK(object.number("absent", 0.5) == 0.5);
  CHECK(object.boolean("b", false));
  CHECK(object.boolean("absent", true));
  CHECK(object.string("s") == "text");
  CHECK(object.string("n", "d") == "d");
  CHECK(object.has("i"));
  CHECK_FALSE(object.has("n"));
  CHECK_FALSE(object.has("absent"));
  const JsonObject inner = object.object("o");
  CHECK(inner.where() == "config.json: o");
  CHECK(inner.object("p").where() == "config.json: o.p");
  CHECK(error_of([&] { inner.integer("i"); }) ==
        "config.json: o.i: found the string \"x\", an integer is needed");
  CHECK(error_of([&] { object.integer("h"); }) ==
        "config.json: h: found 4.5, an integer is needed");
  CHECK(has(error_of([&] { object.integer("big"); }), "18446744073709551615"));
  CHECK(has(error_of([&] { object.integer("n"); }), "found null"));
  CHECK(has(error_of([&] { inner.object("p").string("q"); }), "o.p.q: found an array"));
  CHECK(has(error_of([&] { object.integer("hiddensize"); }), "hiddensize: the key is missing"));
  CHECK(has(error_of([&] { object.number("s"); }), "a number is needed"));
  CHECK(has(error_of([&] { object.boolean("i", false); }), "true or false"));
  CHECK(has(error_of([&] { object.object("i"); }), "an object is needed"));
  const json list = json::array();
  CHECK(error_of([&] { JsonObject(list, "x.json"); }) ==
        "x.json: found an array, an object is needed");
  try {
    object.integer("hiddensize");
  } catch (const Error& error) {
    CHECK(has(error.hint(), "\"hidden_size\""));
  }
}

TEST_CASE("nearest name") {
  const std::vector<std::string> names = {"learning_rate", "lora_rank", "max_steps", "seed"};
  CHECK(nearest_name("learnin_rate", names) == "learning_rate");
  CHECK(nearest_name("learning-rate", names) == "learning_rate");
  CHECK(nearest_name("LearningRate", names) == "learning_rate");
  CHECK(nearest_name("sede", names) == "seed");
  CHECK(nearest_name("max_step", names) == "max_steps");
  CHECK(nearest_name("quantisation", names) == "");
  CHECK(nearest_name("", names) == "");
  CHECK(nearest_name("x", names) == "");
  CHECK(nearest_name("seed", {}) == "");
}

TEST_CASE("json text is stable") {
  const json value = {{"b", 1}, {"a", {1, 2}}, {"c", "\xc3\xa9\xff"}, {"d", std::nan("")}};
  CHECK(dump_json(value, -1) == "{\"a\":[1,2],\"b\":1,\"c\":\"\xc3\xa9\xef\xbf\xbd\",\"d\":null}");
  CHECK(dump_json({{"b", 1}}, 2) == "{\n  \"b\": 1\n}");
}
