// Rows through a sliding window: a file's rows are those of its text, whatever lies on a border.
#include "libcore/io/text_window.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/io/jsonl.h"
#include "libcore/io/plain_rows.h"
#include "tests/support/paths.h"

namespace ds {
namespace {

struct Read {
  std::int64_t line;
  std::int64_t column;
  std::string text;
  std::string key;
  std::string reason;
  bool operator==(const Read&) const = default;
};

template <class Reader>
std::vector<Read> read_all(Reader&& reader) {
  std::vector<Read> rows;
  JsonRow row;
  while (reader.next_text(row)) {
    rows.push_back({row.line, row.column, std::string(row.text), std::string(row.key), row.reason});
  }
  return rows;
}

JsonRowReader json_rows(TextWindow window, JsonLayout layout) {
  JsonRowReader reader(std::move(window), "f", EncodingPolicy::kError);
  reader.set_layout(layout);
  return reader;
}

// About three windows of rows of uneven length in each layout.
std::string rows_text(JsonLayout layout) {
  const bool lines = layout == JsonLayout::kLines;
  std::string text = lines ? "" : layout == JsonLayout::kArray ? "[" : "{";
  for (int i = 0; text.size() < (3u << 20); ++i) {
    if (i > 0 && !lines) text += ",";
    if (i > 0) text += i % 7 == 0 ? "\r\n\n" : "\n";
    const std::string row = "{\"a\": \"" +
                            std::string(static_cast<std::size_t>(i * 37 % 900), 'x') +
                            "\\\"]}\", \"b\": [" + std::to_string(i) + "]}";
    const std::string key = "\"k" + std::to_string(i) + "\" : ";
    if (layout == JsonLayout::kMembers) text += key + row;
    if (layout == JsonLayout::kLists) text += key + "[" + row + ", " + row + "]";
    if (lines || layout == JsonLayout::kArray) text += row;
  }
  return text + (lines ? "" : layout == JsonLayout::kArray ? "]" : "}\n");
}

}  // namespace

TEST_CASE("window: the rows of a file, and of a pipe, are those of its text") {
  const auto dir = test::make_temp_dir("window");
  for (const JsonLayout layout :
       {JsonLayout::kLines, JsonLayout::kArray, JsonLayout::kMembers, JsonLayout::kLists}) {
    CAPTURE(static_cast<int>(layout));
    const std::string text = rows_text(layout);
    write_file(dir / "f", text);
    const auto expected = read_all(json_rows(TextWindow(std::string_view(text)), layout));
    REQUIRE(expected.size() > 1000);
    for (const Read& row : expected) REQUIRE(row.reason.empty());
    CHECK(expected.back().key.empty() ==
          (layout == JsonLayout::kLines || layout == JsonLayout::kArray));
    CHECK(read_all(json_rows(TextWindow(dir / "f"), layout)) == expected);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    std::thread writer([&] {
      for (std::size_t at = 0; at < text.size();) {
        const std::size_t size = std::min<std::size_t>(1 + at % 50000, text.size() - at);
        const ssize_t written = write(ends[1], text.data() + at, size);
        if (written <= 0) break;
        at += static_cast<std::size_t>(written);
      }
      close(ends[1]);
    });
    const auto piped = read_all(json_rows(TextWindow(ends[0], "pipe"), layout));
    writer.join();
    close(ends[0]);
    CHECK(piped == expected);
    // Cut anywhere, the rows before are the same and the end is told.
    if (layout == JsonLayout::kLines) continue;
    for (const std::size_t cut : {text.size() - 2, text.size() / 2, std::size_t{1}}) {
      const std::string_view part = std::string_view(text).substr(0, cut);
      const auto rows = read_all(json_rows(TextWindow(part), layout));
      REQUIRE(!rows.empty());
      CHECK_MESSAGE(rows.back().reason.find("nothing after it can be read") != std::string::npos,
                    rows.back().reason);
    }
  }
  std::filesystem::remove_all(dir);
}

TEST_CASE("window: objects of rows with faults in them") {
  const auto rows = [](const std::string& text, JsonLayout layout) {
    return read_all(json_rows(TextWindow(std::string_view(text)), layout));
  };
  auto read = rows("{\"a\": {\"x\": 1}, \"b\": 5, \"c\\\"d\": [1],}", JsonLayout::kMembers);
  REQUIRE(read.size() == 4);
  CHECK(read[2].key == "c\\\"d");
  CHECK(read[2].text == "[1]");
  CHECK(read[3].reason == "a comma before the closing '}'");
  read = rows("{\"a\": [1, 2], \"b\": [], \"c\": 3, \"d\": [4,]} x", JsonLayout::kLists);
  REQUIRE(read.size() == 6);
  CHECK(read[1].key == "a");
  CHECK(read[2].key == "c");
  CHECK(read[3].text == "4");
  CHECK(read[4].reason == "a comma before the closing ']'");
  CHECK(read[5].reason.starts_with("text after the closing '}'"));
  for (const char* text : {"{\"a\"", "{\"a\": ", "{\"a", "{5: 1}", "{\"a\" 1}", "{\"a\": [1} ]",
                           "{\"a\": [1] 5}", "{\"a\": [1]"}) {
    CAPTURE(text);
    for (const JsonLayout layout : {JsonLayout::kMembers, JsonLayout::kLists}) {
      read = rows(text, layout);
      REQUIRE(!read.empty());
      // Of members this is the parser's business: the text of the row is found.
      const bool whole = layout == JsonLayout::kMembers && std::string(text) == "{\"a\": [1] 5}";
      CAPTURE(read.back().reason);
      CHECK((whole || read.back().reason.find("nothing after it") != std::string::npos));
    }
  }
}

TEST_CASE("window: CSV records and plain lines, across windows") {
  const auto dir = test::make_temp_dir("window");
  std::string text = "\xef\xbb\xbfname,text\r\n";
  for (int i = 0; text.size() < (3u << 20); ++i) {
    text += "n" + std::to_string(i) + ",\"a \"\"quote\"\",\nand " +
            std::string(static_cast<std::size_t>(i * 37 % 900), 'x') + "\"\n";
    if (i % 10 == 0) text += "\r\n";
  }
  write_file(dir / "f", text);
  const CsvRowReader header(TextWindow(std::string_view(text)), "f");
  CHECK(header.header() == std::vector<std::string>{"name", "text"});
  const auto expected = read_all(CsvRowReader(TextWindow(std::string_view(text)), "f"));
  CHECK(read_all(CsvRowReader(TextWindow(dir / "f"), "f")) == expected);
  CsvRowReader reader(TextWindow(dir / "f"), "f");
  JsonRow row;
  std::int64_t count = 0;
  while (reader.next_text(row)) {
    nlohmann::ordered_json value;
    reader.parse(row, EncodingPolicy::kError, value);
    REQUIRE_MESSAGE(row.good(), row.reason);
    CHECK(value["name"] == "n" + std::to_string(count));
    CHECK(value["text"].get_ref<const std::string&>().starts_with("a \"quote\",\nand "));
    ++count;
  }
  CHECK(count == static_cast<std::int64_t>(expected.size()));
  const auto lines = read_all(LineRowReader(TextWindow(dir / "f"), "f"));
  CHECK(lines == read_all(LineRowReader(TextWindow(std::string_view(text)), "f")));
  CHECK(lines.size() > expected.size());
  for (const char* bad : {"", "\"open\n"}) {
    CAPTURE(bad);
    CHECK_THROWS_AS(CsvRowReader(TextWindow(std::string_view(bad)), "f"), Error);
  }
  std::filesystem::remove_all(dir);
}

// Seconds of this thread to read a CSV file of one row with so many columns, all of other names.
double seconds_of_row(int columns) {
  std::string header, record;
  for (int i = 0; i < columns; ++i) {
    header += (i == 0 ? "c" : ",c") + std::to_string(i);
    record += i == 0 ? "x" : ",x";
  }
  const std::string text = header + "\n" + record + "\n";
  const std::clock_t begin = std::clock();
  CsvRowReader reader(TextWindow(std::string_view(text)), "f");
  JsonRow row;
  REQUIRE(reader.next_text(row));
  nlohmann::ordered_json value;
  reader.parse(row, EncodingPolicy::kError, value);
  CHECK(value.size() == static_cast<std::size_t>(columns));
  return static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC;
}

TEST_CASE("CSV: many columns, and columns of one name") {
  // Sixteen times the columns take sixteen times as long; searched one by one they took 256 times.
  double small = seconds_of_row(4000);
  for (int i = 0; i < 4; ++i) small = std::min(small, seconds_of_row(4000));
  CHECK(seconds_of_row(64'000) < 64 * std::max(small, 1e-4));

  const std::string text = "a,b,a\n1,2,3\n";
  CsvRowReader reader(TextWindow(std::string_view(text)), "f");
  JsonRow row;
  REQUIRE(reader.next_text(row));
  nlohmann::ordered_json value;
  reader.parse(row, EncodingPolicy::kError, value);
  CHECK(value.dump() == R"({"a":"3","b":"2"})");
  JsonRow bad;
  bad.text = "1,2";
  reader.parse(bad, EncodingPolicy::kError, value);
  CHECK(bad.reason == "2 fields, 3 are needed (\"a,b,a\")");
}

}  // namespace ds
