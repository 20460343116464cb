// Rows of training and evaluation data.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <unordered_map>
#include <vector>

#include "libcore/check/finding.h"
#include "libcore/check/lengths.h"
#include "libcore/text/chat_template.h"
#include "libcore/text/tokenizer.h"

namespace ds::check {

struct DatasetCheckOptions {
  const Tokenizer* tokenizer = nullptr;  // null: rows are not tokenised
  ChatTemplate chat_template = ChatTemplate::kV31;
  std::int64_t vocab_size = 0;  // 0: not known
  std::int64_t cutoff_len = 2048;
  // Rows that are almost those of another file are looked for.
  bool several_files = false;
};

struct DatasetSize {
  std::int64_t rows = 0;
  std::int64_t usable = 0;
  std::int64_t tokens = 0;   // of usable rows, after truncation; 0 without a tokenizer
  std::int64_t longest = 0;  // tokens of the longest row, after truncation
  std::string format;        // "messages", ...
  Lengths lengths;           // of usable rows; characters without a tokenizer
};

// Where rows of other files were seen, so that several files are compared with each other.
class SeenRows {
 public:
  struct Place {
    std::int32_t file = 0;
    std::int64_t line = 0;
  };
  // nullptr when the row is new; it is remembered then.
  const Place* meet(std::uint64_t digest, std::int64_t line);
  // The same by the digest of a row's normal_text.
  const Place* meet_alike(std::uint64_t digest, std::int64_t line);
  void begin_file(const std::string& name) {
    ++file_;
    names_.push_back(name);
  }
  std::int32_t file() const { return file_; }
  const std::string& name(const Place& place) const {
    return names_[static_cast<std::size_t>(place.file - 1)];
  }

 private:
  std::unordered_map<std::uint64_t, Place> rows_;
  std::unordered_map<std::uint64_t, Place> alike_;
  std::vector<std::string> names_;
  std::int32_t file_ = 0;
};

// Reads the file row by row; memory grows by some bytes a row. Throws Error(kIo) only.
DatasetSize check_dataset(const std::filesystem::path& path, const DatasetCheckOptions& options,
                          SeenRows& seen, Findings& findings);

}  // namespace ds::check
