// The rows of a data file, converted, with their place.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

#include "libcore/data/formats.h"
#include "libcore/io/jsonl.h"

namespace ds {

struct SourceRow {
  std::int64_t line = 0;
  std::int64_t column = 0;  // of the problem, 0 when it does not apply
  ConvertedRow row;         // problems and repairs of reading included
};

// Reads one file row by row. Its format is that of the first usable row; a later row without that
// format's keys is a problem of that row ("other_format"). Bad bytes by policy: kReplace repairs
// ("replaced_bytes"), kSkip makes a problem of the row, kError throws Error(kBadInput) naming file,
// line and column.
class RowSource {
 public:
  // Throws what JsonRowReader throws.
  RowSource(const std::filesystem::path& path, EncodingPolicy policy);
  // Rows out of text that outlives the source; `name` is the file's name in errors.
  RowSource(std::string_view text, const std::string& name, EncodingPolicy policy);
  // Returns false at the end.
  bool next(SourceRow& row);
  // nullopt until a usable row was read.
  std::optional<DataFormat> format() const { return format_; }
  // Bytes of the file passed so far.
  std::size_t position() const { return reader_.position(); }

 private:
  JsonRowReader reader_;
  std::string name_;
  EncodingPolicy policy_;
  std::optional<DataFormat> format_;
};

}  // namespace ds
