// GGUF files byte by byte, for tests of the reader and the writer.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace ds::test {

// Appends numbers and strings as a GGUF file has them.
class GgufBytes {
 public:
  template <class T>
  GgufBytes& put(T value) {
    char bytes[sizeof value];
    std::memcpy(bytes, &value, sizeof value);
    bytes_.append(bytes, sizeof value);
    return *this;
  }
  GgufBytes& u32(std::uint32_t value) { return put(value); }
  GgufBytes& u64(std::uint64_t value) { return put(value); }
  GgufBytes& text(const std::string& value) {
    u64(value.size());
    bytes_ += value;
    return *this;
  }
  GgufBytes& raw(const std::string& value) {
    bytes_ += value;
    return *this;
  }
  // Magic, version and counts.
  GgufBytes& start(std::uint64_t tensors, std::uint64_t keys, std::uint32_t version = 3) {
    return raw("GGUF").u32(version).u64(tensors).u64(keys);
  }
  // One tensor's entry; dimensions fastest first.
  GgufBytes& tensor(const std::string& name, const std::vector<std::uint64_t>& dims,
                    std::uint32_t type, std::uint64_t offset) {
    text(name).u32(static_cast<std::uint32_t>(dims.size()));
    for (const std::uint64_t dim : dims) u64(dim);
    return u32(type).u64(offset);
  }
  GgufBytes& pad(std::size_t alignment = 32) {
    while (bytes_.size() % alignment != 0) bytes_ += '\0';
    return *this;
  }
  const std::string& bytes() const { return bytes_; }

 private:
  std::string bytes_;
};

}  // namespace ds::test
