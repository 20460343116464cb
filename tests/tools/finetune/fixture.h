// A tiny model and token rows for tests of the program.
#pragma once

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libcore/base/rng.h"
#include "tests/support/paths.h"
#include "tests/support/process.h"
#include "tests/support/tiny_model.h"

namespace ds::test {

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE_MESSAGE(in.good(), path.string());
  return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
}

inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// A folder with model/ and rows.jsonl (pre-tokenised, 14 rows of 3 to 20 tokens), removed at the
// end.
class Fixture {
 public:
  explicit Fixture(const TinyModel& tiny = {}) : root_(make_temp_dir("finetune")) {
    write_tiny_model(root_ / "model", tiny);
    std::ofstream rows(root_ / "rows.jsonl");
    const Rng rng(17, 0);
    std::uint64_t draw = 0;
    for (int row = 0; row < 14; ++row) {
      nlohmann::json ids = nlohmann::json::array();
      nlohmann::json labels = nlohmann::json::array();
      const int length = 3 + static_cast<int>(rng.bits(draw++) % 18);
      for (int i = 0; i < length; ++i) {
        ids.push_back(2 + rng.bits(draw++) % (kTinyVocab - 2));
        labels.push_back(i < length / 3 ? nlohmann::json(-100) : ids.back());
      }
      rows << nlohmann::json{{"input_ids", ids}, {"labels", labels}}.dump() << "\n";
    }
  }
  ~Fixture() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  Fixture(const Fixture&) = delete;
  Fixture& operator=(const Fixture&) = delete;

  const std::filesystem::path& root() const { return root_; }
  std::string path(const std::string& name) const { return (root_ / name).string(); }

  // Arguments of a short training run into `output`, followed by `more`.
  std::vector<std::string> train(const std::string& output,
                                 const std::vector<std::string>& more = {}) const {
    std::vector<std::string> arguments{"train",
                                       "--model",
                                       path("model"),
                                       "--dataset",
                                       path("rows.jsonl"),
                                       "--output_dir",
                                       path(output),
                                       "--threads",
                                       "2",
                                       "--lora_r",
                                       "4",
                                       "--learning_rate",
                                       "1e-3"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    return arguments;
  }

 private:
  std::filesystem::path root_;
};

inline Outcome finetune(const std::vector<std::string>& arguments, const RunOptions& options = {}) {
  return run_program("deepseek-finetune", arguments, options);
}

inline std::vector<nlohmann::json> read_events(const std::filesystem::path& path) {
  std::vector<nlohmann::json> events;
  std::ifstream in(path);
  std::string line;
  while (std::getline(in, line)) events.push_back(nlohmann::json::parse(line));
  return events;
}

}  // namespace ds::test
