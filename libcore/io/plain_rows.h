// Streaming rows out of CSV and out of plain text.
#pragma once

#include <cstddef>
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/io/jsonl.h"
#include "libcore/io/text_window.h"

namespace ds {

// CSV with a header (RFC 4180: fields with commas, quotes or line breaks stand in double quotes, a
// quote inside is doubled; LF or CRLF; a UTF-8 byte order mark and blank lines are skipped). Holds
// one record in memory. Errors as JsonRowReader.
class CsvRowReader {
 public:
  // Throws Error(kBadInput) for an empty file, UTF-16, and a header that is no record.
  CsvRowReader(TextWindow window, const std::string& name);
  // The names of the columns.
  const std::vector<std::string>& header() const { return header_; }
  // The place and the text of the next record. Returns false at the end. A quote that is not closed
  // within kMostRecordBytes is a problem of its line (row.reason).
  bool next_text(JsonRow& row);
  // {"column": "field", ...} of row.text; null for a bad row, see row.reason. Any thread may call.
  void parse(JsonRow& row, EncodingPolicy policy, nlohmann::ordered_json& value) const;
  std::size_t position() const { return window_.base(); }
  std::size_t size() const { return window_.total(); }

  static constexpr std::size_t kMostRecordBytes = std::size_t{16} << 20;

 private:
  // A column of an object: of several with one name the first gives the place, the last the value.
  struct Column {
    std::size_t name = 0;   // in header_
    std::size_t field = 0;  // of a record
  };
  TextWindow window_;
  std::vector<std::string> header_;
  std::vector<Column> columns_;
  std::string header_text_;  // quoted, for messages
  std::size_t line_start_ = 0;
  std::int64_t line_ = 1;
};

// Each line that is not blank is a row: {"text": line}.
class LineRowReader {
 public:
  // Throws Error(kBadInput) for an empty file and for UTF-16.
  LineRowReader(TextWindow window, const std::string& name);
  bool next_text(JsonRow& row);
  static void parse(JsonRow& row, EncodingPolicy policy, nlohmann::ordered_json& value);
  std::size_t position() const { return window_.base(); }
  std::size_t size() const { return window_.total(); }

 private:
  TextWindow window_;
  std::int64_t line_ = 1;
};

}  // namespace ds
