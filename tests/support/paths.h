// Where tests find files.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <string>

namespace ds::test {

// The project's root.
inline std::filesystem::path source_dir() {
  const char* dir = std::getenv("DEEPSEEK_SOURCE_DIR");
  return dir != nullptr ? dir : ".";
}
// The build folder whose programs are tested (bin/deepseek-finetune below it).
inline std::filesystem::path build_dir() {
  const char* dir = std::getenv("DEEPSEEK_BUILD_DIR");
  return dir != nullptr ? dir : "build/release";
}
// The shared reference material beside the checkout; empty when it is not there.
inline std::filesystem::path shared_dir() {
  const auto dir = source_dir() / ".." / "shared";
  return std::filesystem::exists(dir / "goldens") ? dir : std::filesystem::path();
}
// A fresh empty folder for one test, removed by the caller or left in the temporary folder.
inline std::filesystem::path make_temp_dir(const std::string& name) {
  std::string pattern =
      (std::filesystem::temp_directory_path() / ("ds-" + name + "-XXXXXX")).string();
  if (mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("mkdtemp failed: " + pattern);
  return pattern;
}

}  // namespace ds::test
