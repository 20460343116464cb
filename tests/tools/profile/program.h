// deepseek-profile as a user runs it.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/support/paths.h"
#include "tests/support/process.h"

namespace ds::test {

inline bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

class Folder {
 public:
  Folder() : root_(make_temp_dir("profile")) {}
  ~Folder() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  Folder(const Folder&) = delete;
  Folder& operator=(const Folder&) = delete;
  std::string path(const std::string& name) const { return (root_ / name).string(); }
  void write(const std::string& name, const std::string& text) const {
    std::filesystem::create_directories((root_ / name).parent_path());
    std::ofstream(root_ / name, std::ios::binary) << text;
  }
  const std::filesystem::path& root() const { return root_; }

 private:
  std::filesystem::path root_;
};

inline Outcome profile(std::vector<std::string> arguments) {
  return run_program("deepseek-profile", arguments);
}

inline nlohmann::json profile_json(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--format", "json", "--threads", "2"});
  const Outcome outcome = profile(arguments);
  REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
  return nlohmann::json::parse(outcome.out);
}

inline double sum(const nlohmann::json& rows, const char* key) {
  double total = 0.0;
  for (const nlohmann::json& row : rows) total += row.value(key, 0.0);
  return total;
}

inline const nlohmann::json& row_named(const nlohmann::json& rows, const std::string& name) {
  for (const nlohmann::json& row : rows) {
    if (row["name"] == name) return row;
  }
  FAIL("no row " << name);
  return rows;
}

}  // namespace ds::test
