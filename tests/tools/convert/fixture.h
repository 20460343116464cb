// A temporary folder, and tensors of checkpoints for tests of deepseek-convert.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libcore/base/hash.h"
#include "libcore/io/checkpoint_index.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"
#include "tests/support/tiny_model.h"

namespace ds::test {

namespace fs = std::filesystem;

inline std::string read_text(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE_MESSAGE(in.good(), path.string());
  return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
}
inline void write_text(const fs::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}
inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// Removed at the end.
class TempFolder {
 public:
  TempFolder() : root_(make_temp_dir("convert")) {}
  ~TempFolder() {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  std::string operator/(const std::string& name) const { return (root_ / name).string(); }
  const fs::path& root() const { return root_; }
  // Names in the folder.
  std::vector<std::string> names() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(root_)) {
      names.push_back(entry.path().filename().string());
    }
    return names;
  }

 private:
  fs::path root_;
};

// A tensor of a file, with its bytes.
struct Loaded {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::string bytes;
  bool operator==(const Loaded&) const = default;
};
inline std::map<std::string, Loaded> load_file(const fs::path& path) {
  std::map<std::string, Loaded> tensors;
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const TensorInfo& info : file.tensors()) {
    tensors[std::string(info.name)] = {
        info.dtype, info.shape.copy(),
        std::string(reinterpret_cast<const char*>(file.data(info)), info.bytes())};
  }
  return tensors;
}
inline std::map<std::string, Loaded> load_folder(const fs::path& folder) {
  std::map<std::string, Loaded> tensors;
  const Checkpoint checkpoint = Checkpoint::open(folder);
  for (const auto& file : checkpoint.files()) tensors.merge(load_file(file->path()));
  return tensors;
}

// Writes tensors as a single-file checkpoint beside a config.json.
inline void save_folder(const fs::path& folder, const std::string& config,
                        const std::map<std::string, Loaded>& tensors) {
  fs::create_directories(folder);
  write_text(folder / "config.json", config);
  std::vector<TensorToWrite> list;
  for (const auto& [name, tensor] : tensors) {
    list.push_back({name, tensor.dtype, tensor.shape, tensor.bytes.data()});
  }
  write_safetensors(folder / "model.safetensors", list, {{"format", "pt"}});
}

inline Outcome convert(const std::vector<std::string>& arguments, const RunOptions& options = {}) {
  return run_program("deepseek-convert", arguments, options);
}
// Runs it and expects success.
inline Outcome converted(const std::vector<std::string>& arguments) {
  const Outcome outcome = convert(arguments);
  REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
  return outcome;
}

// shared/goldens/NAME/NAME, or empty with a message.
inline fs::path golden_model(const std::string& name) {
  if (shared_dir().empty()) {
    MESSAGE("skipped: shared/goldens is not there");
    return {};
  }
  return shared_dir() / "goldens" / name / name;
}

}  // namespace ds::test
