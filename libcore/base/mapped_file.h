// Read-only memory mapping of a file.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>

namespace ds {

// Owns the mapping; move-only. An empty file maps to size 0. Throws Error(kIo) naming the file when
// it cannot be opened or mapped or is no regular file. Another process that truncates the file
// while it is mapped makes later reads fail with SIGBUS: files of a run must be replaced by
// renaming.
class MappedFile {
 public:
  MappedFile() = default;
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&& other) noexcept;

  const std::filesystem::path& path() const { return path_; }
  // Together they name the file itself, whatever its path leads to later.
  std::uint64_t device() const { return device_; }
  std::uint64_t inode() const { return inode_; }
  const std::byte* data() const { return data_; }
  std::size_t size() const { return size_; }
  // Tells the kernel that [offset, offset + length) will be, or is no longer, needed. Parts outside
  // the file are ignored; advice never fails.
  void will_need(std::size_t offset, std::size_t length) const;
  void dont_need(std::size_t offset, std::size_t length) const;

 private:
  void advise(std::size_t offset, std::size_t length, int advice) const;
  void unmap() noexcept;
  std::filesystem::path path_;
  std::uint64_t device_ = 0, inode_ = 0;
  const std::byte* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace ds
