// Digests.
#pragma once

#include <cstddef>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

namespace ds {

// SHA-256 of bytes given piece by piece.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(Sha256&&) noexcept;
  Sha256& operator=(Sha256&&) noexcept;
  void update(const void* data, std::size_t size);
  void update(std::string_view bytes) { update(bytes.data(), bytes.size()); }
  // 64 lower-case hex digits. Call once.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// SHA-256 as 64 lower-case hex digits.
std::string sha256(std::string_view bytes);
// Reads the file in pieces; memory does not grow with it. Throws Error(kIo).
std::string sha256_file(const std::filesystem::path& path);

}  // namespace ds
