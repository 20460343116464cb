// deepseek-check --fix as a user runs it.
#include <doctest/doctest.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

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

TEST_CASE("--fix: what the first repair brings to light is repaired in the same run") {
  const TempFolder folder("fix-cli-rounds");
  const std::string model = (folder.root() / "model").string();
  const std::string out = (folder.root() / "out").string();
  write_spoilt(model);
  fs::remove(fs::path(model) / kIndex);
  const std::string shard = read_text(fs::path(model) / kShard1);
  const std::vector<std::string> strict{"--fail_on", "warning"};
  CHECK(check({model, "--fix_output", out, strict[0], strict[1]}).exit_code == 0);
  CHECK(check({out, strict[0], strict[1]}).exit_code == 0);
  CHECK_FALSE(fs::exists(fs::path(out) / (std::string(kShard1) + ".orig")));
  CHECK_FALSE(fs::exists(fs::path(model) / kIndex));
  CHECK(read_text(fs::path(model) / kShard1) == shard);

  const Outcome fixed = check({model, "--fix", "--format", "json", strict[0], strict[1]});
  CHECK(fixed.exit_code == 0);
  CHECK(check({model, strict[0], strict[1]}).exit_code == 0);
  std::set<std::string> written;
  const json document = json::parse(fixed.out);
  for (const json& one : document["fix"]["written"]) {
    CHECK_MESSAGE(written.insert(one["file"]).second, one["file"]);
    const bool index = one["file"].get<std::string>().ends_with(kIndex);
    CHECK(one["backup"].is_null() == index);
  }
  CHECK(written.size() == 3);
  CHECK(read_text(fs::path(model) / (std::string(kShard1) + ".orig")) == shard);
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

TEST_CASE("--fix on a disk that is full: exit 4, everything as it was, and again with room") {
  const TempFolder folder("fix-cli-disk");
  const fs::path disk = folder.root() / "disk", whole = folder.root() / "whole";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=8m") != 0) {
    MESSAGE("skipped: this user cannot mount a small disk");
    return;
  }
  write_spoilt(whole);
  std::string rows = "{\"text\": \"a<|User|>b\"}\n";
  for (int i = 0; i < 2000; ++i) rows += "{\"text\": \"" + std::string(1000, 'x') + "\"}\n";
  write_text(whole / "rows.jsonl", rows);
  fs::copy(whole, disk / "model");
  const auto names = [&] {
    std::set<std::string> all;
    for (const auto& entry : fs::recursive_directory_iterator(disk)) all.insert(entry.path());
    return all;
  };
  const std::set<std::string> before = names();
  // Room for what is there and one page more: neither the shard nor the rows fit a second time.
  std::uint64_t used = 4096;
  for (const auto& entry : fs::recursive_directory_iterator(disk)) {
    if (entry.is_regular_file()) used += (entry.file_size() + 4095) / 4096 * 4096;
  }
  const std::string size = "size=" + std::to_string(used);
  REQUIRE(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, size.c_str()) == 0);
  const std::string model = (disk / "model").string(), file = (disk / "model/rows.jsonl").string();
  for (const std::vector<std::string>& arguments :
       {std::vector<std::string>{file, "--fix"},
        {file, "--fix_output", (disk / "rows.jsonl").string()},
        {model, "--fix_output", (disk / "out").string()}}) {
    const Outcome full = check(arguments);
    // Hard links need no room: a folder fails at the first file that is written anew.
    CHECK_MESSAGE(full.exit_code == 4, full.err);
    CHECK_MESSAGE(has(full.err, "No space left"), full.err);
    CHECK(names() == before);
    CHECK(read_text(file) == rows);
  }
  REQUIRE(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=32m") == 0);
  CHECK(check({model, "--fix"}).exit_code == 0);
  CHECK(check({file, "--fix"}).exit_code == 0);
  CHECK(read_text(file) != rows);
  ::umount(disk.c_str());
}
