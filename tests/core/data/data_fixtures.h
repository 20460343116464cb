// Files and the tokenizer that the tests of this folder share.
#pragma once

#include <filesystem>
#include <fstream>
#include <string>

#include "libcore/text/tokenizer.h"
#include "tests/support/paths.h"

namespace ds::test {

// A data file in a temporary folder, removed with this object.
class DataFile {
 public:
  explicit DataFile(const std::string& text, const std::string& name = "rows.jsonl")
      : folder_(make_temp_dir("data")), path_(folder_ / name) {
    std::ofstream(path_, std::ios::binary) << text;
  }
  ~DataFile() { std::filesystem::remove_all(folder_); }
  DataFile(const DataFile&) = delete;
  DataFile& operator=(const DataFile&) = delete;
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path folder_;
  std::filesystem::path path_;
};

// The folder of nano-v3: the project's own copy, else the shared one; empty when neither is there.
inline std::filesystem::path nano_dir() {
  for (const auto& folder : {source_dir() / "examples" / "nano-v3",
                             source_dir() / ".." / "shared" / "models" / "nano-v3"}) {
    if (std::filesystem::exists(folder / "tokenizer.json")) return folder;
  }
  return {};
}

// nano-v3's tokenizer, loaded once; nullptr when the model is not there.
inline const Tokenizer* nano_tokenizer() {
  if (nano_dir().empty()) return nullptr;
  static const Tokenizer tokenizer = Tokenizer::load(nano_dir());
  return &tokenizer;
}

}  // namespace ds::test
