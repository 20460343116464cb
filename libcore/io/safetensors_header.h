// Reading the header of a safetensors file out of its bytes (used by SafetensorsFile; also by tests
// and fuzzing, which need no file).
#pragma once

#include <cstdint>
#include <deque>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "libcore/io/safetensors.h"

namespace ds {

struct SafetensorsHeader {
  std::vector<TensorInfo> tensors;  // in offset order
  std::vector<std::uint32_t> by_name;
  std::map<std::string, std::string> metadata;
  // What the tensors' names and shapes lie in, beside the bytes of the file.
  std::deque<std::string> unescaped;
  std::vector<std::int64_t> extents;
};

// Checks and reads the header; `name` is the file's name in messages. `file` must outlive the
// result. Throws Error(kBadInput).
SafetensorsHeader parse_safetensors_header(std::span<const std::byte> file,
                                           const std::string& name);

// dtype bits times the product of the shape, in bytes. False when it overflows; `whole` is false
// when the bits are no multiple of 8.
bool tensor_bytes(DType dtype, std::span<const std::int64_t> shape, std::uint64_t& bytes,
                  bool& whole);

// "[2, 3]".
std::string shape_text(std::span<const std::int64_t> shape);

}  // namespace ds
