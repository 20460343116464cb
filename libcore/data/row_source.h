// The rows of a data file, converted, with their place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/data/formats.h"
#include "libcore/io/jsonl.h"
#include "libcore/io/text_window.h"

namespace ds {

struct SourceRow {
  std::int64_t line = 0;
  std::int64_t column = 0;  // of the problem, 0 when it does not apply
  ConvertedRow row;         // problems and repairs of reading included
};

struct SourceOptions {
  EncodingPolicy encoding = EncodingPolicy::kReplace;
  std::optional<DataFormat> format;  // absent: found from the file
  bool pairs = false;                // kDpo may be found
  RowRules rules;
  // The lists of a file of lists ({"train": [...], ...}) that are read; empty: all.
  std::vector<std::string> splits;
};

// Reads one file row by row. Its format is that of the first usable row; a later row without that
// format's keys is a problem of that row ("other_format"). Bad bytes by policy: kReplace repairs
// ("replaced_bytes"), kSkip makes a problem of the row, kError throws Error(kBadInput) naming file,
// line and column. Containers: JSON lines, a JSON array, PubMedQA's object of rows, CLINC150's
// object of lists, CSV (first line without '{' or '[' that has a comma, or a name that ends in
// .csv), plain lines (format kText, or a name that ends in .txt).
class RowSource {
 public:
  // Throws what JsonRowReader throws.
  RowSource(const std::filesystem::path& path, EncodingPolicy policy);
  // Rows out of text that outlives the source; `name` is the file's name in errors.
  RowSource(std::string_view text, const std::string& name, EncodingPolicy policy);
  RowSource(TextWindow window, const std::string& name, SourceOptions options);
  ~RowSource();
  RowSource(RowSource&&) noexcept;

  // Returns false at the end.
  bool next(SourceRow& row);
  // The same with the row's text, valid until the row after it is read.
  bool next(SourceRow& row, JsonRow& text);
  // The two halves of next(), for several threads: the text of the next row, valid until the row
  // after it is read; and its conversion, once format() is known, by any thread.
  bool next_text(JsonRow& text);
  // `value` is a thread's own: its memory is used again from row to row.
  void convert(JsonRow& text, SourceRow& row, nlohmann::ordered_json& value) const;

  // nullopt until a usable row was read, unless it was given.
  std::optional<DataFormat> format() const { return format_; }
  // "JSON lines", "a JSON array", "CSV", ...
  std::string_view container() const;
  // Bytes of the file passed so far, and of the whole file (0: not known).
  std::size_t position() const;
  std::size_t size() const;

 private:
  struct Reader;
  void open(TextWindow window);
  std::unique_ptr<Reader> reader_;
  std::string name_;
  SourceOptions options_;
  std::optional<DataFormat> format_;
};

}  // namespace ds
