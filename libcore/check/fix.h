// Repairs of findings that have one right answer: the index of a checkpoint, the metadata of a
// safetensors file, tokens in the rows of a dataset.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "libcore/base/atomic_write.h"
#include "libcore/check/detect.h"
#include "libcore/check/finding.h"

namespace ds::check {

// One change in a file.
struct Repair {
  const Rule* rule = nullptr;
  std::string file;       // the file that was wrong
  std::int64_t line = 0;  // from 1; 0: does not apply
  std::string key;        // of the index or the metadata; the field of a row
  std::string before;     // what stood there, short
  std::string after;
};
// What has a repair in general, and why it has none here.
struct NotRepaired {
  const Rule* rule = nullptr;
  std::string file;
  std::int64_t line = 0;
  std::string reason;
};

// Of one kind at most this many are kept, the rest is counted.
inline constexpr std::size_t kKeptRepairs = 1000;

// A file to be written anew.
struct FileRepair {
  std::filesystem::path path;  // as it is named in the target
  bool fresh = false;          // no such file is there yet
  std::uint64_t bytes = 0;     // of the new file, about
  // Writes the whole new file, in bounded memory. Throws Error.
  std::function<void(AtomicFile&)> write;
};
struct FixPlan {
  std::vector<FileRepair> files;
  std::vector<Repair> repairs;
  std::vector<NotRepaired> left;
  std::int64_t more_repairs = 0;  // over kKeptRepairs
  std::int64_t more_left = 0;

  void add(Repair repair);
  void leave(NotRepaired reason);
};

// What can be done about `findings`, which are those of `path` alone. Reads, writes nothing. Only
// rules that occur among the findings are repaired. Throws Error(kIo).
FixPlan plan_fixes(TargetKind kind, const std::filesystem::path& path,
                   const std::vector<Finding>& findings);

// Writes the files of the plan in their place; what stood there stays as FILE.orig. Each file is at
// any moment the old or the new one. Throws Error(kUsage) before anything is written when a
// FILE.orig is there that is not FILE itself (which a run that was killed leaves); Error(kIo).
void fix_in_place(const FixPlan& plan);
// Makes `output`, which must not be there: a file when `source` is one, else a folder with every
// file of `source`, hard links where the file system allows, copies where not, and the repaired
// ones new. It appears whole or not at all. Throws Error(kUsage), Error(kIo).
void fix_into(const FixPlan& plan, const std::filesystem::path& source,
              const std::filesystem::path& output);

// Rows of a dataset, for plan_fixes().
struct DatasetFixes {
  bool bos = false;  // begin tokens in front of a text
  bool eos = false;  // end tokens behind what the model writes
  bool near_miss = false;
};
void plan_dataset_fixes(const std::filesystem::path& path, const DatasetFixes& wanted,
                        FixPlan& plan);

}  // namespace ds::check
