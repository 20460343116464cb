// Streaming rows out of JSON lines or a JSON array of any size.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

#include "libcore/base/mapped_file.h"

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
  std::string_view text;    // the row's bytes in the file (for rejects files), as they are there
  bool good() const { return reason.empty() || repaired; }
};

// Detects a JSON array against JSON lines by the first non-blank byte; skips a UTF-8 BOM; accepts
// CRLF, blank lines, a missing last newline. Holds one row in memory. Rows may be any JSON value,
// nested at most 256 levels; of duplicate keys the last one wins. A file that is empty or UTF-16
// (both Error(kBadInput)) or cannot be opened (Error(kIo)) is an Error; a bad row is reported by
// next() and reading goes on at the next row. In an array that works as long as quotes and brackets
// balance; after that nothing more can be read and the reason says so.
class JsonRowReader {
 public:
  JsonRowReader(const std::filesystem::path& path, EncodingPolicy policy);
  // Reads rows out of text that outlives the reader; `name` is the file's name in errors.
  JsonRowReader(std::string_view text, const std::string& name, EncodingPolicy policy);
  // Reads one row into `value` (null for a bad row). Returns false at the end. Check row.good()
  // before using value.
  bool next(nlohmann::json& value, JsonRow& row);
  // The same with the order of keys kept (tools and their parameters are rendered in it).
  bool next(nlohmann::ordered_json& value, JsonRow& row);
  bool is_array() const { return array_; }
  // Bytes read so far and of the whole file, for progress.
  std::size_t position() const { return position_; }
  std::size_t size() const { return text_.size(); }

 private:
  struct Target;  // the value to parse into, of either type
  bool next_row(Target& value, JsonRow& row);
  void start(const std::string& name);
  bool next_line(Target& value, JsonRow& row);
  bool next_element(Target& value, JsonRow& row);
  bool after_array(JsonRow& row);
  void parse(std::string_view text, std::size_t offset, Target& value, JsonRow& row);
  // Sets row.column and completes row.reason for a problem at byte `offset` of the file.
  void locate(std::size_t offset, JsonRow& row) const;
  void stop(std::size_t offset, const std::string& reason, JsonRow& row);
  void skip_space();
  MappedFile file_;
  std::string_view text_;
  EncodingPolicy policy_;
  bool array_ = false;
  bool failed_ = false;
  bool array_ended_ = false;
  bool first_ = true;
  std::size_t position_ = 0;
  std::size_t line_start_ = 0;
  std::int64_t line_ = 1;
};

}  // namespace ds
