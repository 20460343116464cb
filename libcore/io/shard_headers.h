// The headers of a folder's shards, read ahead.
#pragma once

#include <atomic>
#include <cstddef>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "libcore/io/safetensors.h"

namespace ds {

// Opens the shards of a folder on all CPUs, from its construction on: while the index that says
// which of them count is still being read. A few shards are left to the one who takes them.
class ShardHeaders {
 public:
  // `folder` and `names` (sorted) must outlive this.
  ShardHeaders(const std::filesystem::path& folder, const std::vector<std::string>& names);
  ~ShardHeaders();
  ShardHeaders(const ShardHeaders&) = delete;
  ShardHeaders& operator=(const ShardHeaders&) = delete;

  // Opens what is left. take() may be called then.
  void finish();
  // The file of that name, once; also of names that the constructor was not given. Throws what
  // SafetensorsFile::open throws.
  SafetensorsFile take(const std::string& name);

 private:
  struct Opened {
    std::optional<SafetensorsFile> file;
    std::exception_ptr failure;
  };
  void work();
  void join();

  const std::filesystem::path& folder_;
  const std::vector<std::string>& names_;
  std::vector<Opened> opened_;
  std::atomic<std::size_t> next_{0};
  std::vector<std::thread> others_;
};

}  // namespace ds
