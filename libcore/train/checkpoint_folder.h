// The directory protocol of checkpoints: folders that are whole or absent. Used by
// checkpoint_state.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace ds {

// N of "checkpoint-N"; nothing for any other name.
std::optional<std::int64_t> checkpoint_step(const std::string& name);

// A "checkpoint-N" folder.
struct CheckpointFolder {
  std::filesystem::path path;
  std::int64_t step = 0;
};
// All of them in `output`, newest (highest step) first; none when there is no such folder. Throws
// Error(kIo) when it cannot be read.
std::vector<CheckpointFolder> list_checkpoints(const std::filesystem::path& output);

// Every regular file below `folder` as a path relative to it with '/' separators, sorted; links and
// other kinds of file are refused. Throws Error(kIo).
std::vector<std::string> list_files(const std::filesystem::path& folder);

// A checkpoint in the making. Destroyed without commit(), it removes what it wrote.
class CheckpointWriter {
 public:
  // Makes OUTPUT/.checkpoint-STEP.tmp-PID, empty. Throws Error(kIo). Tests say `can_exchange` =
  // false to get what happens on a file system that cannot exchange two names in one step.
  CheckpointWriter(const std::filesystem::path& output, std::int64_t step,
                   bool can_exchange = true);
  ~CheckpointWriter();
  CheckpointWriter(const CheckpointWriter&) = delete;
  CheckpointWriter& operator=(const CheckpointWriter&) = delete;
  const std::filesystem::path& folder() const { return temporary_; }
  // Flushes every file and folder to disk, then renames. Throws Error(kIo).
  std::filesystem::path commit();

 private:
  std::filesystem::path output_;
  std::filesystem::path temporary_;
  std::int64_t step_;
  bool can_exchange_;
};

// Deletes OUTPUT/checkpoint-STEP so that no moment leaves a part of it under that name. Throws
// Error(kIo).
void delete_checkpoint(const CheckpointFolder& checkpoint);

}  // namespace ds
