// deepseek-check as a user runs it.
#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <regex>
#include <set>

#include "tests/core/check/model_fixture.h"
#include "tests/support/man_page.h"
#include "tests/support/process.h"
#include "tests/support/schema.h"

namespace {

using namespace ds::test;
using nlohmann::json;
namespace fs = std::filesystem;

Outcome check(const std::vector<std::string>& arguments) {
  return run_program("deepseek-check", arguments);
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

json check_json(std::vector<std::string> arguments, int exit_code) {
  arguments.insert(arguments.end(), {"--format", "json"});
  const Outcome outcome = check(arguments);
  REQUIRE_MESSAGE(outcome.exit_code == exit_code, outcome.err);
  return json::parse(outcome.out);
}

// A folder with `good`, and `bad`: a warning (total_size) and an error (a missing tensor).
class Fixture {
 public:
  Fixture() : folder_("check-cli") {
    Model model = sound_model();
    model.write(folder_.root() / "good");
    model.tensors.erase("lm_head.weight");
    model.index_metadata = {{"total_size", 5}};
    model.write(folder_.root() / "bad");
  }
  std::string path(const std::string& name) const { return (folder_.root() / name).string(); }
  const fs::path& root() const { return folder_.root(); }

 private:
  TempFolder folder_;
};

}  // namespace

TEST_CASE("usage, help, version, and the man page has every flag") {
  CHECK(check({}).exit_code == 2);
  CHECK(check({"--format", "json"}).exit_code == 2);
  CHECK(check({"list"}).exit_code == 2);
  const Outcome help = check({"--help"});
  CHECK(help.exit_code == 0);
  CHECK(has(help.out, "explain"));
  CHECK(check({"--version_only"}).exit_code == 0);

  for (const std::string& problem :
       man_page_problems("deepseek-check", {"check", "list", "rules", "explain", "canary"})) {
    FAIL_CHECK(problem);
  }
}

TEST_CASE("exit codes") {
  const Fixture f;
  CHECK(check({f.path("good")}).exit_code == 0);
  CHECK(check({f.path("bad")}).exit_code == 1);
  CHECK(check({f.path("good"), f.path("bad")}).exit_code == 1);
  CHECK(check({"--model", f.path("bad")}).exit_code == 1);
  CHECK(check({f.path("nowhere")}).exit_code == 3);
  CHECK(check({"--model", f.path("nowhere")}).exit_code == 3);
  write_text(f.root() / "picture.png", "\x89PNG....");
  CHECK(check({f.path("picture.png")}).exit_code == 3);
  fs::create_directory(f.root() / "empty");
  CHECK(check({f.path("empty")}).exit_code == 3);
  CHECK(check({f.path("good"), "--fail_on", "note"}).exit_code == 2);
  CHECK(check({f.path("good"), "--select", "DS999"}).exit_code == 2);
  const Outcome nearest = check({f.path("good"), "--ignore", "contianer"});
  CHECK(nearest.exit_code == 2);
  CHECK(has(nearest.err, "container"));
  // Warnings fail only when asked to.
  CHECK(check({f.path("bad"), "--ignore", "architecture"}).exit_code == 0);
  CHECK(check({f.path("bad"), "--ignore", "architecture", "--fail-on", "warning"}).exit_code == 1);
  CHECK(check({f.path("bad"), "--select", "missing-tensor"}).exit_code == 1);
  CHECK(check({f.path("bad"), "--select", "ds026"}).exit_code == 0);
}

TEST_CASE("JSON: keys, counts, baseline, limit; the same bytes twice") {
  const Fixture f;
  const json bad = check_json({f.path("bad")}, 1);
  REQUIRE(bad["findings"].size() == 2);
  for (const json& finding : bad["findings"]) {
    for (const char* key : {"rule", "severity", "file", "tensor", "line", "key", "message", "found",
                            "expected", "fix"}) {
      CHECK_MESSAGE(finding.contains(key), key);
    }
  }
  CHECK(bad["findings"][0]["rule"] == "DS026");
  CHECK(bad["findings"][1]["rule"] == "DS059");
  CHECK(bad["findings"][1]["tensor"] == "lm_head.weight");
  CHECK(bad["summary"]["errors"] == 1);
  CHECK(bad["summary"]["warnings"] == 1);
  CHECK(bad["summary"]["files"] == 2);
  CHECK(bad["targets"][0]["kind"] == "checkpoint");
  const json again = check_json({f.path("bad")}, 1);
  CHECK(again["findings"] == bad["findings"]);

  write_text(f.root() / "known.json", bad.dump());
  const json rest = check_json({f.path("bad"), "--baseline", f.path("known.json")}, 0);
  CHECK(rest["findings"].empty());
  CHECK(rest["summary"]["known"] == 2);
  // A copy elsewhere has the same fingerprints, another mistake has not.
  fs::copy(f.root() / "bad", f.root() / "moved");
  CHECK(check({f.path("moved"), "--baseline", f.path("known.json")}).exit_code == 0);
  write_text(f.root() / "moved" / "config.json", "{");
  CHECK(check({f.path("moved"), "--baseline", f.path("known.json")}).exit_code == 1);
  CHECK(check({f.path("bad"), "--baseline", f.path("good/config.json")}).exit_code == 3);

  const json few = check_json({f.path("bad"), "--max_findings", "1"}, 1);
  CHECK(few["findings"].size() == 1);
  CHECK(few["summary"]["hidden"] == 1);
  CHECK(few["summary"]["errors"] == 1);
}

TEST_CASE("text names what was checked, and groups what was found") {
  const Fixture f;
  const Outcome good = check({f.path("good")});
  CHECK(has(good.out, "checkpoint, "));
  CHECK(has(good.out, "nothing found"));
  const Outcome bad = check({f.path("bad")});
  CHECK(has(bad.out, "\ncontainer\n"));
  CHECK(has(bad.out, "\narchitecture\n"));
  CHECK(has(bad.out, "DS059 missing-tensor"));
  CHECK(has(bad.out, "fix: "));
  CHECK(has(bad.out, "1 error, 1 warning, 0 notes"));
  CHECK(!has(bad.out, "\x1b["));
  CHECK(has(check({f.path("bad"), "--color", "always"}).out, "\x1b[1;31m"));
}

TEST_CASE("report: one event a finding, all by their schema") {
  const Fixture f;
  CHECK(check({f.path("bad"), "--report", f.path("report.jsonl")}).exit_code == 1);
  CHECK(validate_report(f.root() / "report.jsonl") == std::vector<std::string>{});
  std::ifstream in(f.root() / "report.jsonl");
  int findings = 0;
  json last;
  for (std::string line; std::getline(in, line);) {
    last = json::parse(line);
    findings += last["schema"] == "deepseek/finding/1" ? 1 : 0;
  }
  CHECK(findings == 2);
  CHECK(last["schema"] == "deepseek/end/1");
  CHECK(last["exit_code"] == 1);
}

TEST_CASE("JUnit: counts agree with the cases, failures are those of --fail_on") {
  const Fixture f;
  const auto count = [](const std::string& text, const std::string& part) {
    std::size_t n = 0;
    for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1))
      ++n;
    return n;
  };
  for (const char* level : {"error", "warning"}) {
    const Outcome xml =
        check({f.path("bad"), f.path("good"), "--format", "junit", "--fail_on", level});
    CHECK(xml.exit_code == 1);
    const std::size_t failures = count(xml.out, "<failure ");
    CHECK(failures == (std::string(level) == "error" ? 1 : 2));
    CHECK(has(xml.out, "<testsuites name=\"deepseek-check\" tests=\"" +
                           std::to_string(count(xml.out, "<testcase ")) + "\" failures=\"" +
                           std::to_string(failures) + "\""));
    CHECK(count(xml.out, "<testsuite ") == 2);
    CHECK(count(xml.out, "<testcase ") == count(xml.out, "</testcase>") + count(xml.out, "\"/>"));
  }
}

TEST_CASE("SARIF: version, rules, and results that point at them") {
  const Fixture f;
  const Outcome out = check({f.path("bad"), "--format", "sarif"});
  CHECK(out.exit_code == 1);
  const json sarif = json::parse(out.out);
  CHECK(sarif["version"] == "2.1.0");
  REQUIRE(sarif["runs"].is_array());
  const json& run = sarif["runs"][0];
  const json& rules = run["tool"]["driver"]["rules"];
  CHECK(run["tool"]["driver"]["name"] == "deepseek-check");
  REQUIRE(run["results"].is_array());
  REQUIRE(run["results"].size() == 2);
  for (const json& result : run["results"]) {
    CHECK(rules.at(result["ruleIndex"].get<std::size_t>())["id"] == result["ruleId"]);
    CHECK(result["locations"].is_array());
    const std::string uri =
        result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"].get<std::string>();
    CHECK(uri.starts_with("file:///"));
    CHECK(!result["message"]["text"].get<std::string>().empty());
  }
  CHECK(run["results"][1]["locations"][0]["logicalLocations"][0]["fullyQualifiedName"] ==
        "lm_head.weight");
}

TEST_CASE("SARIF documents against the schema") {
  const Fixture f;
  const fs::path schema = source_dir() / "tests" / "data" / "sarif_subset.json";
  // Findings with a tensor, a key, a line; of a path with a space and other letters; and none.
  write_text(f.root() / "zeilen \u00fc.jsonl", "{\"text\":\"a\"}\n{\n");
  const std::string rows = f.path("zeilen \u00fc.jsonl");
  json document;
  for (const auto& paths : std::vector<std::vector<std::string>>{
           {f.path("good")},
           {f.path("bad"), rows, (source_dir() / "examples" / "nano-v3").string()}}) {
    std::vector<std::string> arguments = paths;
    arguments.insert(arguments.end(), {"--format", "sarif"});
    document = json::parse(check(arguments).out);
    CHECK(validate_document(document, schema) == std::vector<std::string>{});
  }
  const json& results = document["runs"][0]["results"];
  const auto any = [&](const std::string& pointer) {
    return std::any_of(results.begin(), results.end(), [&](const json& result) {
      return result.contains(json::json_pointer(pointer));
    });
  };
  CHECK(any("/locations/0/physicalLocation/region/startLine"));
  CHECK(any("/locations/0/logicalLocations/0/fullyQualifiedName"));

  // The schema refuses what the standard refuses.
  const auto refuses = [&](const std::string& pointer, const json& value) {
    json spoilt = document;
    spoilt[json::json_pointer(pointer)] = value;
    CHECK_MESSAGE(!validate_document(spoilt, schema).empty(), pointer);
  };
  refuses("/version", "2.0.0");
  refuses("/runs", json::object());
  refuses("/runs/0/results/0/level", "fatal");
  refuses("/runs/0/results/0/message", "text");
  refuses("/runs/0/results/0/locations", json::object());
  refuses("/runs/0/results/0/ruleIndex", "3");
  refuses("/runs/0/results/0/severity", "error");
  refuses("/runs/0/results/0/locations/0/physicalLocation/artifactLocation/uri", "a b");
  refuses("/runs/0/results/0/locations/0/physicalLocation/region", {{"startLine", 0}});
  refuses("/runs/0/tool/driver/rules/0/defaultConfiguration/level", "Error");
  refuses("/runs/0/tool/driver/rules/0/help", json::array());
  refuses("/runs/0/tool/driver/name", nullptr);
}

TEST_CASE("list: every tensor once, totals, exit 3 for what cannot be listed") {
  const Fixture f;
  const json list = check_json({"list", f.path("good")}, 0);
  const Model model = sound_model();
  CHECK(list["tensors"].size() == model.tensors.size());
  CHECK(list["totals"]["tensors"] == model.tensors.size());
  std::uint64_t bytes = 0;
  std::uint64_t parameters = 0;
  for (const auto& [name, tensor] : model.tensors) {
    bytes += tensor.data.size();
    if (!name.ends_with("_scale_inv"))
      parameters += tensor.data.size() * 8 / Model::bits(tensor.dtype);
  }
  CHECK(list["totals"]["bytes"] == bytes);
  CHECK(list["totals"]["parameters"] == parameters);
  for (const char* key : {"name", "dtype", "shape", "file", "bytes"}) {
    CHECK_MESSAGE(list["tensors"][0].contains(key), key);
  }
  const json shard = check_json({"list", f.path("good") + "/" + kShard2}, 0);
  CHECK(shard["totals"]["tensors"] < model.tensors.size());
  fs::resize_file(f.root() / "bad" / kShard2, 100);
  CHECK(check({"list", f.path("bad")}).exit_code == 3);
  CHECK(check({"list", f.path("bad") + "/" + kShard2}).exit_code == 3);
  CHECK(check({"list", f.path("nowhere")}).exit_code == 3);
  CHECK(check({"list", f.path("good"), "--format", "sarif"}).exit_code == 2);
}

TEST_CASE("a single shard is a container and nothing more") {
  const Fixture f;
  const std::string shard = f.path("good") + "/" + kShard1;
  const json good = check_json({shard}, 0);
  CHECK(good["targets"][0]["kind"] == "shard");
  CHECK(good["findings"].empty());
  fs::resize_file(shard, fs::file_size(shard) - 1);
  const json cut = check_json({shard}, 1);
  CHECK(cut["findings"][0]["rule"] == "DS002");
}

TEST_CASE("rules and explain; docs/rules.md is what the program prints") {
  const json listed = check_json({"rules"}, 0);
  CHECK(listed["rules"].size() == ds::check::rules().size());
  CHECK(has(check({"explain", "DS021"}).out, "missing-shard"));
  CHECK(has(check({"explain", "missing_shard"}).out, "DS021"));
  const Outcome unknown = check({"explain", "missing-shrad"});
  CHECK(unknown.exit_code == 2);
  CHECK(has(unknown.err, "missing-shard"));
  const std::string page = read_text(source_dir() / "docs" / "rules.md");
  CHECK_MESSAGE(check({"rules", "--markdown"}).out == page,
                "run deepseek-check rules --markdown > docs/rules.md");
}

TEST_CASE("adapter and dataset are checked against the model named with them") {
  const Fixture f;
  const std::string model = (source_dir() / "examples" / "nano-v3").string();
  const std::string rows =
      (source_dir() / "examples" / "intent" / "intent_train_500.jsonl").string();
  const json data = check_json({"--model", model, "--dataset", rows}, 0);
  REQUIRE(data["targets"].size() == 2);
  CHECK(data["targets"][1]["kind"] == "dataset");
  CHECK(data["summary"]["errors"] == 0);
  // The limit in tokens needs the model's tokenizer.
  const json cut = check_json({"--dataset", rows, "--model", model, "--cutoff_len", "8"}, 0);
  CHECK(cut["summary"]["warnings"] > data["summary"]["warnings"]);
  CHECK(check_json({rows, "--cutoff_len", "8"}, 0)["summary"]["warnings"] ==
        data["summary"]["warnings"]);
  const json& lengths = data["targets"][1]["lengths"];
  CHECK(lengths["unit"] == "tokens");
  CHECK(lengths["p50"] <= lengths["p90"]);
  CHECK(lengths["p99"] <= lengths["max"]);
  std::int64_t measured = 0;
  for (const json& bucket : lengths["histogram"]) measured += bucket["rows"].get<std::int64_t>();
  CHECK(measured == lengths["rows"]);
  CHECK(check_json({rows}, 0)["targets"][0]["lengths"]["unit"] == "characters");
  CHECK(has(check({rows}).out, "characters a row: half up to "));
  // The same file twice shares every row.
  CHECK(has(check({rows, rows}).out, "shared-row"));

  Model adapter;
  const std::string key = "base_model.model.model.layers.7.self_attn.o_proj.lora_";
  adapter.set(key + "A.weight", "F32", {4, 64}, "adapter_model.safetensors");
  adapter.set(key + "B.weight", "F32", {64, 4}, "adapter_model.safetensors");
  fs::create_directory(f.root() / "adapter");
  std::string bytes;
  const std::string header = adapter.header_of("adapter_model.safetensors", bytes);
  write_text(f.root() / "adapter" / "adapter_model.safetensors", Model::file_bytes(header, bytes));
  write_text(f.root() / "adapter" / "adapter_config.json",
             R"({"peft_type":"LORA","task_type":"CAUSAL_LM","r":4,"target_modules":["o_proj"]})");
  CHECK(check({f.path("adapter")}).exit_code == 0);
  const json against = check_json({"--adapter", f.path("adapter"), "--model", f.path("good")}, 1);
  CHECK(has(against.dump(), "key-matches-nothing"));
  CHECK(check_json({"list", f.path("adapter")}, 0)["totals"]["parameters"] == 512);
  CHECK(check({"--adapter", f.path("good")}).exit_code == 3);
  CHECK(check({"--dataset", f.path("nowhere.jsonl")}).exit_code == 3);
}

TEST_CASE("--deep reads the data, of single shards too") {
  const Fixture f;
  CHECK(check({f.path("good"), "--deep", "--fail_on", "warning"}).exit_code == 0);
  Model model = sound_model();
  model.at("model.norm.weight").data.replace(0, 2, "\xff\xff");
  model.write(f.root() / "nan");
  CHECK(check({f.path("nan")}).exit_code == 0);
  CHECK(check({f.path("nan"), "--deep"}).exit_code == 1);
  CHECK(check({f.path("nan") + "/" + kShard1, "--deep"}).exit_code == 1);
  CHECK(check({f.path("nan") + "/" + kShard2, "--deep"}).exit_code == 0);
}

TEST_CASE("no rule fires on what is shipped or shared") {
  std::vector<std::string> models{(source_dir() / "examples" / "nano-v3").string()};
  if (shared_dir().empty()) {
    MESSAGE("skipped: the shared models are not there");
  } else {
    for (const char* name : {"tiny-moonlight", "tiny-v2", "tiny-v2-lite", "tiny-v3", "tiny-v3-fp8",
                             "tiny-v3-fp8-ue8m0"}) {
      models.push_back((shared_dir() / "goldens" / name / name).string());
    }
    models.push_back((shared_dir() / "goldens" / "tiny-v3" / "tiny-v3-bf16").string());
    models.push_back((shared_dir() / "models" / "nano-v3").string());
    models.push_back((shared_dir() / "data" / "deepseek-v3-tokenizer").string());
  }
  if (!shared_dir().empty()) {
    for (const auto& [model, adapter] :
         std::vector<std::pair<std::string, std::string>>{{"tiny-v3", "all"},
                                                          {"tiny-v3", "dora"},
                                                          {"tiny-v3", "patterns"},
                                                          {"tiny-v3", "rslora"},
                                                          {"tiny-v2", "all"},
                                                          {"tiny-v2-lite", "all"},
                                                          {"tiny-moonlight", "all"},
                                                          {"tiny-v3-fp8", "not_routed"}}) {
      const auto golden = shared_dir() / "goldens" / model;
      const Outcome outcome =
          check({"--model", (golden / model).string(), "--adapter",
                 (golden / "lora" / adapter).string(), "--deep", "--fail_on", "warning"});
      CHECK_MESSAGE(outcome.exit_code == 0, outcome.out);
    }
  }
  for (const std::string& model : models) {
    const Outcome outcome = check({model, "--deep", "--fail_on", "warning"});
    CHECK_MESSAGE(outcome.exit_code == 0, outcome.out);
  }
}
