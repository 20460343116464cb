// One file of a result: made on several threads, whole or absent.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "tools/convert/output_plan.h"
#include "tools/convert/page_filler.h"

namespace ds::convert {

// A file under a temporary name, filled in any order by any thread; renamed by commit(), removed
// otherwise. Throws Error(kIo) naming the file.
class FileInWork {
 public:
  FileInWork(const std::filesystem::path& folder, const OutputFile& file);
  ~FileInWork();
  FileInWork(const FileInWork&) = delete;
  FileInWork& operator=(const FileInWork&) = delete;
  // No byte may be written twice.
  void write(std::uint64_t offset, const void* data, std::size_t bytes);
  void commit();

 private:
  [[noreturn]] void fail(const char* action, int code);
  bool fill(std::uint64_t offset, const char* data, std::size_t bytes);
  void write_edges();
  void write_alone(std::uint64_t offset, const char* data, std::size_t bytes);
  void start_disk(std::size_t bytes);
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int fd_ = -1;
  bool in_memory_ = false;
  // The kernel lets one thread at a time write to a file and makes the others spin.
  std::mutex writing_;
  struct Edge {
    std::uint64_t offset;
    std::string bytes;
  };
  std::mutex edges_lock_;
  std::vector<Edge> edges_;                  // of pieces that were filled, not written yet
  std::unique_ptr<PageFiller> filler_;       // for those who would wait; null on a disk
  std::atomic<std::size_t> since_start_{0};  // bytes written since the disk was last started
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
  std::uint64_t input_before(std::size_t piece) const;
  void ask(std::size_t piece);
  void work(Workbench& bench);

  const OutputFile& plan_;
  FileInWork& file_;
  std::vector<Workbench>& benches_;
  std::atomic<std::uint64_t>& written_;
  std::vector<std::size_t> starts_;          // first piece of each job
  std::vector<std::uint64_t> input_starts_;  // bytes of input that the jobs before it read
  std::size_t pieces_ = 0;
  std::atomic<std::size_t> next_{0};
  std::mutex asking_;
  std::size_t asked_ = 0;  // pieces whose input is on its way
  std::atomic<bool> cancelled_{false};
  std::mutex mutex_;
  std::condition_variable ended_;
  std::size_t working_ = benches_.size();
  std::exception_ptr failure_;
};

}  // namespace ds::convert
