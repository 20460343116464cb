// What is said and written about dropped and repaired rows.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>

#include "libcore/base/atomic_write.h"
#include "libcore/cli/run.h"
#include "tools/convert/data_stream.h"

namespace ds::convert {

// Counts rows by what happened to them; writes each to the rejects file and to the reports, and the
// first few as words.
class DataReport {
 public:
  // `input` names the file in words; `rejects` is empty for none.
  DataReport(std::string input, const std::string& rejects, cli::Run& run);
  void add(const RowNote& note);
  // Puts the rejects file in its place.
  void commit();
  const std::map<std::string, std::int64_t>& dropped() const { return dropped_; }
  const std::map<std::string, std::int64_t>& repaired() const { return repaired_; }
  std::int64_t repaired_rows() const { return repaired_rows_; }
  // "3 (2 invalid_json, 1 no_answer)".
  static std::string counts_text(std::int64_t rows,
                                 const std::map<std::string, std::int64_t>& kinds);
  // The most frequent reasons with their first lines, for a file without a usable row.
  std::string reasons_text() const;

 private:
  void say(const RowNote& note, const RowRemark& remark);
  std::string input_;
  cli::Run& run_;
  std::optional<AtomicFile> rejects_;
  std::map<std::string, std::int64_t> dropped_;
  std::map<std::string, std::int64_t> repaired_;
  std::map<std::string, std::string> first_;  // by kind: "line 3: reason"
  std::int64_t repaired_rows_ = 0;
  std::int64_t said_ = 0;
};

}  // namespace ds::convert
