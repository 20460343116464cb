// Streaming rows out of JSON lines or a JSON array of any size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>

#include "libcore/io/text_window.h"

namespace ds {

// What to do with a row that has bytes that are not UTF-8, or lone surrogate escapes: kError and
// kSkip hand it out as a bad row (what that means is the caller's business), kReplace puts U+FFFD.
enum class EncodingPolicy { kError, kReplace, kSkip };

// One row, or the reason why there is none.
struct JsonRow {
  std::int64_t line = 0;    // from 1: the line on which the row begins
  std::int64_t column = 0;  // from 1: byte column of the problem, 0 when it does not apply
  std::string reason;       // empty when the row is good; else why it is not ("invalid UTF-8 ...")
  bool repaired = false;    // bytes were replaced by U+FFFD (kReplace); `reason` says where
  bool encoding = false;    // `reason` is about invalid UTF-8 or a lone surrogate
  std::optional<std::string> twice;  // the first key that one object of the row has twice
  std::string_view text;   // the row's bytes as they are in the file, until the next row is read
  std::string_view key;    // the name the row has in its file (members, lists), with its escapes
  std::size_t offset = 0;  // of `text` in the file
  std::size_t line_start = 0;  // of line `line` in the file
  bool good() const { return reason.empty() || repaired; }
};

// How the rows lie in a file.
enum class JsonLayout {
  kLines,    // one a line
  kArray,    // [row, ...]
  kMembers,  // {"name": row, ...}
  kLists,    // {"name": [row, ...], ...}
};

// Looks at the bytes of a row (row.text) and parses them into `value` (null for a bad row): sets
// row.reason and what belongs to it. Check row.good() before using value. Any thread may call it.
// The memory of what `value` holds is used again.
void parse_json_row(JsonRow& row, EncodingPolicy policy, nlohmann::json& value);
// The same with the order of keys kept (tools and their parameters are rendered in it).
void parse_json_row(JsonRow& row, EncodingPolicy policy, nlohmann::ordered_json& value);
// The first half of it: row.text as UTF-8. Repaired text lies in `repaired`; the result is empty
// and row.good() false when the bytes are bad. Escapes of JSON are looked at with `escapes`.
std::string_view checked_row_text(JsonRow& row, EncodingPolicy policy, bool escapes,
                                  std::string& repaired);
// Sets row.column for a problem at byte `at` of row.text, and completes row.reason when that is on
// a later line.
void locate_in_row(std::size_t at, JsonRow& row);
// Throws Error(kBadInput) for UTF-16 (named) by the first bytes of a file.
void refuse_utf16(std::string_view head, const std::string& name);

// Detects a JSON array against JSON lines by the first non-blank byte; skips a UTF-8 BOM; accepts
// CRLF, blank lines, a missing last newline. Holds one row in memory (and what was read ahead), at
// most kMostRowBytes. Rows may be any JSON value, nested at most 256 levels; of duplicate keys the
// last one wins. A file that is empty or UTF-16 (both Error(kBadInput)) or cannot be opened
// (Error(kIo)) is an Error; a bad row is reported by next() and reading goes on at the next row. In
// the other layouts that works as long as quotes and brackets balance; after that nothing more can
// be read and the reason says so.
class JsonRowReader {
 public:
  static constexpr std::size_t kMostRowBytes = std::size_t{512} << 20;
  JsonRowReader(const std::filesystem::path& path, EncodingPolicy policy);
  // Reads rows out of text that outlives the reader; `name` is the file's name in errors.
  JsonRowReader(std::string_view text, const std::string& name, EncodingPolicy policy);
  JsonRowReader(TextWindow window, const std::string& name, EncodingPolicy policy);
  // Another layout than the detected one; before the first row.
  void set_layout(JsonLayout layout) { layout_ = layout; }
  // The place and the text of the next row, unparsed: row.reason is set only where the text of the
  // row cannot be found. Returns false at the end.
  bool next_text(JsonRow& row);
  // Reads one row into `value` (null for a bad row). Returns false at the end. Check row.good()
  // before using value.
  bool next(nlohmann::json& value, JsonRow& row);
  bool next(nlohmann::ordered_json& value, JsonRow& row);
  bool is_array() const { return layout_ == JsonLayout::kArray; }
  // Bytes read so far and of the whole file (0: not known), for progress.
  std::size_t position() const { return window_.base(); }
  std::size_t size() const { return window_.total(); }

 private:
  template <class Json>
  bool next_value(Json& value, JsonRow& row);
  bool next_line(JsonRow& row);
  bool next_element(JsonRow& row);
  void start(const std::string& name);
  void begin_row(JsonRow& row) const;
  bool read_key(JsonRow& row);
  void read_element(char close, JsonRow& row);
  void close_level();
  // A problem at byte `at` of the window, after which nothing can be read.
  void stop(std::size_t at, const std::string& reason, JsonRow& row);
  void pass(std::size_t count);
  char skip_space();
  TextWindow window_;
  EncodingPolicy policy_;
  JsonLayout layout_ = JsonLayout::kLines;
  bool failed_ = false;
  bool opened_ = false;           // the first bracket is passed
  bool ended_ = false;            // so is the last one
  bool in_list_ = false;          // kLists: inside a list
  bool first_ = false;            // right behind an opening bracket
  bool wants_separator_ = false;  // kLists: right behind a list
  bool skips_line_ = false;       // kLines: the rest of a line that is too long
  std::string key_;
  std::size_t line_start_ = 0;
  std::int64_t line_ = 1;
};

}  // namespace ds
