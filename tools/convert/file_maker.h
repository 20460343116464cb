// One file of a result: made on several threads, whole or absent.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <mutex>
#include <vector>

#include "tools/convert/output_plan.h"

namespace ds::convert {

// A file under a temporary name, filled in any order by any thread; renamed by commit(), removed
// otherwise. Throws Error(kIo) naming the file.
class FileInWork {
 public:
  FileInWork(const std::filesystem::path& folder, const OutputFile& file);
  ~FileInWork();
  FileInWork(const FileInWork&) = delete;
  FileInWork& operator=(const FileInWork&) = delete;
  void write(std::uint64_t offset, const void* data, std::size_t bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* action, int code);
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int fd_ = -1;
  // The kernel lets one thread at a time write to a file and makes the others spin.
  std::mutex writing_;
};

// Makes the jobs of one file, a piece at a time, with one thread a bench.
class FileMaker {
 public:
  // Adds the bytes it writes to `written` as it goes.
  FileMaker(const OutputFile& plan, FileInWork& file, std::vector<Workbench>& benches,
            std::atomic<std::uint64_t>& written);
  // Calls `watch` every tenth of a second meanwhile. Throws what a recipe threw, and
  // Error(kInterrupted) when a stop was asked for.
  void run(const std::function<void()>& watch);

 private:
  const Job& job_of(std::size_t piece, std::size_t& within) const;
  void work(Workbench& bench);

  const OutputFile& plan_;
  FileInWork& file_;
  std::vector<Workbench>& benches_;
  std::atomic<std::uint64_t>& written_;
  std::vector<std::size_t> starts_;  // first piece of each job
  std::size_t pieces_ = 0;
  std::atomic<std::size_t> next_{0};
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  std::size_t working_ = benches_.size();
  std::exception_ptr failure_;
};

}  // namespace ds::convert
