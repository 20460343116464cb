// deepseek-check --fix as a user runs it.
#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/core/check/model_fixture.h"
#include "tests/support/process.h"
#include "tests/support/schema.h"

namespace {

using namespace ds::test;
using nlohmann::json;
namespace fs = std::filesystem;

constexpr const char* kIndex = "model.safetensors.index.json";

Outcome check(const std::vector<std::string>& arguments, const RunOptions& options = {}) {
  return run_program("deepseek-check", arguments, options);
}
bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

// A folder with two repairable warnings and a note, nothing else.
void write_spoilt(const fs::path& folder) {
  Model model = sound_model();
  model.metadata = nullptr;
  model.index_metadata = {{"total_size", 7}};
  model.write(folder);
}

}  // namespace

TEST_CASE("--fix repairs, says what it did, and exits by what is left; a second run is clean") {
  const TempFolder folder("fix-cli");
  const std::string model = (folder.root() / "model").string();
  write_spoilt(model);
  const std::vector<std::string> strict{model, "--fail_on", "warning"};
  CHECK(check(strict).exit_code == 1);
  const std::string report = (folder.root() / "report.jsonl").string();
  const Outcome fixed =
      check({model, "--fail_on", "warning", "--fix", "--format", "json", "--report", report});
  REQUIRE_MESSAGE(fixed.exit_code == 0, fixed.err);
  const json document = json::parse(fixed.out);
  CHECK(document["findings"].empty());
  CHECK(document["fix"]["written"].size() == 3);
  CHECK(document["fix"]["written"][0]["backup"].get<std::string>().ends_with(".orig"));
  CHECK(document["fix"]["not_repaired"].empty());
  REQUIRE(document["fix"]["repairs"].size() == 3);
  for (const json& repair : document["fix"]["repairs"]) {
    for (const char* key : {"rule", "name", "file", "line", "key", "before", "after"}) {
      CHECK_MESSAGE(repair.contains(key), key);
    }
  }
  CHECK(validate_report(report) == std::vector<std::string>{});
  CHECK(has(read_text(report), "deepseek/repair/1"));
  CHECK(check(strict).exit_code == 0);
  const Outcome again = check({model, "--fix", "--fail_on", "warning"});
  CHECK(again.exit_code == 0);
  CHECK(has(again.out, "nothing was written"));
}

TEST_CASE("--fix: what cannot be repaired stays a finding, and the exit code says so") {
  const TempFolder folder("fix-cli-left");
  const std::string model = (folder.root() / "model").string();
  write_spoilt(model);
  fs::remove(fs::path(model) / kShard2);
  const Outcome outcome = check({model, "--fix"});
  CHECK(outcome.exit_code == 1);
  CHECK(has(outcome.out, "wrote " + model + "/" + kShard1));
  CHECK(has(outcome.out, "missing-shard"));
  CHECK(has(outcome.out, "DS028 metadata-format"));
}

TEST_CASE("--fix: only what is asked for, and nothing that the baseline knows") {
  const TempFolder folder("fix-cli-select");
  const std::string model = (folder.root() / "model").string();
  write_spoilt(model);
  const std::string index = read_text(fs::path(model) / kIndex);
  CHECK(check({model, "--fix", "--select", "metadata-format"}).exit_code == 0);
  CHECK(read_text(fs::path(model) / kIndex) == index);
  const Outcome known = check({model, "--format", "json"});
  write_text(folder.root() / "known.json", known.out);
  CHECK(check({model, "--fix", "--baseline", (folder.root() / "known.json").string()}).exit_code ==
        0);
  CHECK(read_text(fs::path(model) / kIndex) == index);
}

TEST_CASE("--fix_output: a new folder or file, the old one untouched") {
  const TempFolder folder("fix-cli-output");
  const std::string model = (folder.root() / "model").string();
  const std::string rows = (folder.root() / "rows.jsonl").string();
  const std::string out = (folder.root() / "out").string();
  write_spoilt(model);
  write_text(rows, "{\"text\": \"a<|User|>b\"}\n{\"text\": \"c\"}\n");
  const std::string shard = read_text(fs::path(model) / kShard1);
  CHECK(check({model, "--fix_output", out, "--fail_on", "warning"}).exit_code == 0);
  CHECK(check({out, "--fail_on", "warning"}).exit_code == 0);
  CHECK(read_text(fs::path(model) / kShard1) == shard);
  CHECK(check({model, "--fail_on", "warning"}).exit_code == 1);
  CHECK(check({model, "--fix_output", out}).exit_code == 2);
  CHECK(check({model, rows, "--fix_output", out + "2"}).exit_code == 2);
  const std::string fixed = (folder.root() / "fixed.jsonl").string();
  CHECK(check({rows, "--fix_output", fixed, "--fail_on", "warning"}).exit_code == 0);
  CHECK(read_text(fixed) == "{\"text\": \"a<\uff5cUser\uff5c>b\"}\n{\"text\": \"c\"}\n");
  CHECK(read_text(rows) == "{\"text\": \"a<|User|>b\"}\n{\"text\": \"c\"}\n");
  CHECK(check({rows, "--fix"}).exit_code == 0);
  CHECK(read_text(rows) == read_text(fixed));
  CHECK(check({rows, "--fix"}).exit_code == 0);
}

TEST_CASE("--fix: killed at any moment, a file is the old or the new one, and --fix goes on") {
  const TempFolder folder("fix-cli-kill");
  const fs::path rows = folder.root() / "rows.jsonl";
  std::string old;
  for (int i = 0; i < 60000; ++i) {
    old += "{\"text\": \"row " + std::to_string(i) + " a<|User|>b\"}\n";
  }
  write_text(rows, old);
  const fs::path elsewhere = folder.root() / "fixed.jsonl";
  CHECK(check({rows.string(), "--fix_output", elsewhere.string()}).exit_code == 0);
  const std::string fixed = read_text(elsewhere);
  CHECK(fixed != old);
  int interrupted = 0;
  for (int milliseconds = 5; milliseconds < 900; milliseconds += milliseconds / 3 + 10) {
    write_text(rows, old);
    fs::remove(rows.string() + ".orig");
    const Outcome killed =
        check({rows.string(), "--fix"}, {.signal_after_ms = milliseconds, .signal = SIGKILL});
    interrupted += killed.exit_code != 0 ? 1 : 0;
    const std::string now = read_text(rows);
    const bool whole = now == old || now == fixed;
    CHECK(whole);
    if (fs::exists(rows.string() + ".orig")) CHECK(read_text(rows.string() + ".orig") == old);
    if (now == old) CHECK(check({rows.string(), "--fix"}).exit_code == 0);
    CHECK(read_text(rows) == fixed);
  }
  CHECK(interrupted > 0);
}

TEST_CASE("--fix: files that may not grow: exit 4, everything as it was") {
  const TempFolder folder("fix-cli-full");
  const std::string model = (folder.root() / "model").string();
  write_spoilt(model);
  const std::string shard = read_text(fs::path(model) / kShard1);
  RunOptions options;
  options.in_child = [] {
    const rlimit limit{4096, 4096};
    setrlimit(RLIMIT_FSIZE, &limit);
  };
  const Outcome limited = check({model, "--fix"}, options);
  CHECK(limited.exit_code == 4);
  CHECK(read_text(fs::path(model) / kShard1) == shard);
  std::size_t files = 0;
  for (const auto& entry : fs::directory_iterator(model)) {
    CHECK(!entry.path().string().ends_with(".orig"));
    ++files;
  }
  CHECK(files == 4);  // config, index, two shards: nothing half written
  const Outcome elsewhere =
      check({model, "--fix_output", (folder.root() / "out").string()}, options);
  CHECK(elsewhere.exit_code == 4);
  CHECK(std::distance(fs::directory_iterator(folder.root()), fs::directory_iterator()) == 1);
}
