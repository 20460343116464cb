// Small files for the tests of libcore/io.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "libcore/base/error.h"

namespace ds::test {

// A safetensors file of this header text and data.
inline std::string safetensors_bytes(const std::string& header, const std::string& data = "") {
  std::string bytes;
  for (int i = 0; i < 8; ++i) {
    bytes += static_cast<char>(static_cast<unsigned char>(std::uint64_t{header.size()} >> (8 * i)));
  }
  return bytes + header + data;
}

// The message of the Error(kBadInput) that `action` throws; "no error" or "wrong code: ..." else.
inline std::string bad_input(const std::function<void()>& action) {
  try {
    action();
  } catch (const Error& error) {
    if (error.code() == ExitCode::kBadInput) return error.what();
    return std::string("wrong code: ") + error.what();
  }
  return "no error";
}

inline bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace ds::test
