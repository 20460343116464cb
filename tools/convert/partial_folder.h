// The folder a result grows in.
#pragma once

#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <string>

#include "libcore/cli/run.h"
#include "tools/convert/output_plan.h"

namespace ds::convert {

// OUT.partial: locked against a second run, with the digest of the plan it belongs to. Throws
// Error(kIo).
class PartialFolder {
 public:
  // With `resume`, the whole files that an earlier run of the same digest left are kept; all else
  // is cleared, files it was writing as it was killed included.
  PartialFolder(const std::filesystem::path& output, const std::string& digest, bool resume,
                cli::Run& run);
  ~PartialFolder();
  PartialFolder(const PartialFolder&) = delete;
  PartialFolder& operator=(const PartialFolder&) = delete;

  const std::filesystem::path& path() const { return path_; }
  bool resumed() const { return resumed_; }
  bool has(const OutputFile& file) const;
  // What the earlier run noted, or null.
  const nlohmann::json& notes() const { return notes_; }
  void note(const nlohmann::json& notes);
  void remove() noexcept;
  // The result takes its place: the folder, or the one file `name` in it. What was there goes.
  void commit(const std::filesystem::path& output, bool single_file, const std::string& name);

 private:
  void lock();
  void read_state(const std::string& digest);
  void clear(const std::function<bool(const std::string&)>& goes);

  std::filesystem::path path_;
  std::string digest_;
  nlohmann::json notes_;
  int lock_ = -1;
  bool resumed_ = false;
};

}  // namespace ds::convert
