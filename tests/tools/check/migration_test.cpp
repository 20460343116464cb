// The whole way of docs/migration.md on the small model.
#include <doctest/doctest.h>
#include <sys/wait.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "tests/support/paths.h"

namespace {

namespace fs = std::filesystem;
using namespace ds::test;

int run(const std::string& command) { return WEXITSTATUS(std::system(command.c_str())); }

std::string text_of(const fs::path& path) {
  std::ifstream in(path);
  return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
}

}  // namespace

TEST_CASE("examples/migrate: from check to the last stage, again without doing anything twice") {
  const fs::path work = make_temp_dir("migrate");
  const fs::path source = source_dir();
  // Rows whose references are the model's own kind of text: the first 40 of the intent task.
  std::ifstream all(source / "examples" / "intent" / "intent_test_300.jsonl");
  std::ofstream some(work / "traffic.jsonl");
  std::string line;
  for (int i = 0; i < 40 && std::getline(all, line); ++i) some << line << "\n";
  some.close();
  const std::string command = "BIN=" + (build_dir() / "bin").string() +
                              " GATES='loss_increase<=0.1' " +
                              (source / "examples" / "migrate").string() + " " +
                              (source / "examples" / "nano-v3").string() + " " +
                              (work / "traffic.jsonl").string() + " " + (work / "out").string();
  REQUIRE(run(command + " > " + (work / "log").string() + " 2>&1") == 0);
  const std::string log = text_of(work / "log");
  CHECK(log.find("candidate may take 100 % of the traffic") != std::string::npos);
  CHECK(fs::exists(work / "out" / "candidate" / "model.safetensors"));
  const std::string last = text_of(work / "out" / "canary-100.xml");
  CHECK(last.find("failures=\"0\"") != std::string::npos);
  const auto made = fs::last_write_time(work / "out" / "candidate" / "model.safetensors");
  REQUIRE(run(command + " > /dev/null 2>&1") == 0);
  CHECK(fs::last_write_time(work / "out" / "candidate" / "model.safetensors") == made);
  // A gate that cannot be met stops it with the canary's exit code.
  fs::remove(work / "out" / "canary.json");
  const std::string strict = command.substr(0, command.find("GATES=")) + "GATES='loss<=0' " +
                             command.substr(command.find("' ") + 2);
  CHECK(run(strict + " > " + (work / "log").string() + " 2>&1") == 1);
  CHECK(text_of(work / "log").find("candidate may take 100") == std::string::npos);
  std::error_code ignored;
  fs::remove_all(work, ignored);
}
