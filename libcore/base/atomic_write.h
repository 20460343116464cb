// Files that are either whole or absent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace ds {

// Writes to a temporary name in the target's folder (".NAME.tmp-PID-N"); commit() flushes it to
// disk, renames it over the target and flushes the folder. Destroyed without commit, it removes the
// temporary file. The target gets the permissions of a new file (umask). After a failed write,
// commit() fails too. Every failure (full disk included) is Error(kIo) naming the target and the
// system's reason; the target is then as it was before. A file larger than RLIMIT_FSIZE is such an
// error only in a program that ignores SIGXFSZ.
class AtomicFile {
 public:
  explicit AtomicFile(const std::filesystem::path& target);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  // Asks for the space of a file of `size` bytes now, so that a full disk is found before hours of
  // writing. Does nothing on file systems that cannot tell.
  void reserve(std::uint64_t size);
  void write(const void* data, std::size_t size);
  void write(std::string_view text) { write(text.data(), text.size()); }
  void commit();

 private:
  [[noreturn]] void fail(const char* action, int code);
  void discard() noexcept;
  std::filesystem::path target_;
  std::filesystem::path temporary_;
  int fd_ = -1;
  bool failed_ = false;
};

// AtomicFile for a whole text at once.
void write_file(const std::filesystem::path& path, std::string_view text);
// The whole file (pipes too). Throws Error(kIo).
std::string read_file(const std::filesystem::path& path);
// Flushes a folder's entries to disk (after renames in it). Throws Error(kIo).
void sync_folder(const std::filesystem::path& folder);

}  // namespace ds
