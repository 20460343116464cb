// deepseek-check --compatibility as a user runs it.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/core/check/tokenizer_fixture.h"
#include "tests/support/schema.h"
#include "tests/tools/check/compatibility_fixture.h"

namespace {

using namespace ds::test;
using nlohmann::json;
namespace fs = std::filesystem;

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
std::string nano() { return (source_dir() / "examples" / "nano-v3").string(); }
std::string intent() {
  return (source_dir() / "examples" / "intent" / "intent_train_500.jsonl").string();
}

// The rows of a section, of one subject where it is named.
std::vector<json> rows(const json& document, const std::string& section,
                       const std::string& subject = "") {
  std::vector<json> found;
  for (const json& row : document["compatibility"]["rows"]) {
    if (row["section"] != section) continue;
    if (!subject.empty() && row["subject"] != subject) continue;
    found.push_back(row);
  }
  return found;
}
std::set<std::string> rules(const json& document) {
  std::set<std::string> found;
  for (const json& finding : document["findings"]) found.insert(finding["name"]);
  return found;
}

}  // namespace

TEST_CASE("without a path: this machine, and the hardware that is named") {
  const Outcome bare = compatibility({});
  CHECK(bare.exit_code == 0);
  CHECK(has(bare.out, "machine: this machine"));
  CHECK(has(bare.out, "processor"));
  CHECK(!has(bare.out, "hardware:"));
  const Outcome named = compatibility({"--hardware", "8xH100-80G"});
  CHECK(named.exit_code == 0);
  CHECK(has(named.out, "hardware: 8xH100-80G"));
  CHECK(has(named.out, "sm_90"));
  const json document = compatibility_json({"--hardware", "4xA100-40G"}, 0);
  CHECK(document["compatibility"]["hardware"]["count"] == 4);
  CHECK(document["compatibility"]["hardware"]["fp8_flops"].is_null());
  CHECK(document["compatibility"]["machine"]["memory_bytes"].get<double>() > 0);
  CHECK(document["compatibility"]["fit"].empty());
}

TEST_CASE("usage: what is not known is said with what is") {
  const Outcome target = compatibility({nano(), "--target", "vlm"});
  CHECK(target.exit_code == 2);
  CHECK(has(target.err, "did you mean vllm?"));
  const Outcome gpu = compatibility({"--hardware", "8xH101-80G"});
  CHECK(gpu.exit_code == 2);
  CHECK(has(gpu.err, "H100-80G"));
  CHECK(compatibility({nano(), "--from", "v4"}).exit_code == 2);
  CHECK(compatibility({nano(), "--from", "v3.1"}).exit_code == 2);
  CHECK(compatibility({nano(), "--from", "v3", "--to", "r1"}).exit_code == 2);
  CHECK(compatibility({"--context", "0"}).exit_code == 2);
  CHECK(compatibility({"--batch", "0"}).exit_code == 2);
  CHECK(compatibility({nano() + "-none"}).exit_code == 3);
  for (const char* flag : {"--from", "--to", "--target", "--hardware"}) {
    const Outcome alone = run_program("deepseek-check", {nano(), flag, "v3"});
    CHECK(alone.exit_code == 2);
    CHECK(has(alone.err, "--compatibility"));
  }
}

TEST_CASE("a sound model, data and adapter: no error, all sections, the same rows twice") {
  const json document = compatibility_json(
      {nano(), intent(), "--hardware", "1xH100", "--from", "v3", "--to", "v3.1"}, 0);
  CHECK(document["summary"]["errors"] == 0);
  CHECK(rows(document, "migration").size() > 10);
  for (const char* stack :
       {"transformers", "peft", "vllm", "sglang", "llama.cpp", "deepseek-inference"}) {
    CHECK_MESSAGE(!rows(document, "target", stack).empty(), stack);
  }
  CHECK(rows(document, "hardware").size() >= 5);
  CHECK(rows(document, "machine").size() >= 5);
  for (const json& row : document["compatibility"]["rows"]) {
    for (const char* key : {"path", "section", "subject", "requirement", "verdict", "detail",
                            "action", "source", "rule"}) {
      CHECK_MESSAGE(row.contains(key), key);
    }
    CHECK(row["action"].is_null() == (row["verdict"] == "ok"));
  }
  CHECK(document["compatibility"]["from"] == "v3");
  CHECK(document["compatibility"]["target"].is_null());
  const json fit = document["compatibility"]["fit"][0];
  CHECK(fit["fits"] == true);
  CHECK(fit["context"] == 2048);  // the model's
  CHECK(fit["tensor_parallel"][0]["degree"] == 1);
  const json again = compatibility_json(
      {nano(), intent(), "--hardware", "1xH100", "--from", "v3", "--to", "v3.1"}, 0);
  CHECK(again["findings"] == document["findings"]);
}

TEST_CASE("--target: only that stack, and what it refuses is an error") {
  CHECK(compatibility({nano(), "--target", "vllm"}).exit_code == 0);
  CHECK(compatibility({nano(), "--target", "transformers"}).exit_code == 0);
  const json document = compatibility_json({nano(), "--target", "llama.cpp"}, 1);
  CHECK(rules(document).count("target-layout") == 1);
  CHECK(rows(document, "target", "vllm").empty());
  for (const json& finding : document["findings"]) {
    if (finding["name"] != "target-layout") continue;
    CHECK(finding["rule"] == "DS320");
    CHECK(finding["severity"] == "error");
    CHECK(has(finding["fix"], "deepseek-convert weights"));
  }
  // Ignored, selected, known: as every other finding.
  CHECK(compatibility({nano(), "--target", "llama.cpp", "--ignore", "compatibility"}).exit_code ==
        0);
  CHECK(compatibility({nano(), "--target", "llama.cpp", "--select", "DS320"}).exit_code == 1);
  TempFolder folder("compatibility-cli");
  write_text(folder.root() / "known.json", document.dump());
  CHECK(compatibility({nano(), "--target", "llama.cpp", "--baseline",
                       (folder.root() / "known.json").string()})
            .exit_code == 0);
}

TEST_CASE("FP8 on GPUs without it: findings, events, JUnit, SARIF") {
  TempFolder folder("compatibility-cli");
  const std::string model = (folder.root() / "model").string();
  sound_model().write(model);
  const std::string report = (folder.root() / "report.jsonl").string();
  const Outcome text = compatibility({model, "--hardware", "8xA100-80G", "--report", report});
  CHECK(text.exit_code == 1);
  CHECK(has(text.out, "DS350 hardware-fp8"));
  CHECK(has(text.out, "sm_80: no FP8"));
  CHECK(has(text.out, "refuses FP8"));
  CHECK(validate_report(report) == std::vector<std::string>{});
  CHECK(compatibility({model, "--hardware", "8xA100-80G", "--ignore", "hardware"}).exit_code == 0);

  const Outcome junit = compatibility({model, "--hardware", "8xA100-80G", "--format", "junit"});
  CHECK(has(junit.out, "classname=\"hardware\" name=\"DS350 hardware-fp8\""));
  CHECK(has(junit.out, "<testcase classname=\"compatibility\" name=\"compatibility\"/>"));
  const json sarif =
      json::parse(compatibility({model, "--hardware", "8xA100-80G", "--format", "sarif"}).out);
  std::set<std::string> ids;
  for (const json& result : sarif["runs"][0]["results"]) ids.insert(result["ruleId"]);
  CHECK(ids.count("DS350") == 1);
}

TEST_CASE("migration: open steps of V3's tokenizer and data") {
  TempFolder folder("compatibility-cli");
  TokenizerFiles files = v3_like_tokenizer();
  files.config = nullptr;
  files.respell("<think>", "<｜place▁holder▁no▁798｜>");
  files.respell("</think>", "<｜place▁holder▁no▁799｜>");
  files.write(folder.root() / ".");
  const std::string tokenizer = folder.root().string();
  const json asked = compatibility_json({tokenizer, "--from", "v3", "--to", "v3.1"}, 1);
  CHECK(rules(asked).count("migration-think-tokens") == 1);

  // Not asked: the migration alone fails nothing.
  const std::string data = (folder.root() / "rows.jsonl").string();
  write_text(data, R"({"text":"<｜User｜>q<｜Assistant｜>a"})");
  const json noted = compatibility_json({data}, 0);
  CHECK(rules(noted) == std::set<std::string>{"migration-open"});
  const json open = compatibility_json({data, "--to", "v3.1"}, 1);
  CHECK(rules(open) == std::set<std::string>{"migration-data-text"});
  CHECK(open["findings"][0]["line"] == 1);
}

TEST_CASE("no error on what is shipped or shared") {
  std::vector<std::vector<std::string>> inputs{{nano()}, {intent()}};
  if (shared_dir().empty()) {
    MESSAGE("skipped: the shared models are not there");
  } else {
    const fs::path goldens = shared_dir() / "goldens";
    for (const char* name : {"tiny-moonlight", "tiny-v2", "tiny-v2-lite", "tiny-v3", "tiny-v3-fp8",
                             "tiny-v3-fp8-ue8m0"}) {
      inputs.push_back({(goldens / name / name).string()});
    }
    inputs.push_back({(shared_dir() / "models" / "nano-v3").string()});
    inputs.push_back({(shared_dir() / "data" / "deepseek-v3-tokenizer").string()});
    for (const char* adapter : {"all", "dora", "patterns", "rslora"}) {
      inputs.push_back({"--model", (goldens / "tiny-v3" / "tiny-v3").string(), "--adapter",
                        (goldens / "tiny-v3" / "lora" / adapter).string()});
    }
    // The two readers of the shared small model take it, V3.1's form asked for.
    inputs.push_back({(shared_dir() / "models" / "nano-v3").string(), "--target", "vllm", "--from",
                      "v3", "--hardware", "2xH100"});
  }
  for (std::vector<std::string>& input : inputs) {
    const std::string name = input.front();
    const Outcome outcome = compatibility(input);
    CHECK_MESSAGE(outcome.exit_code == 0, (name + "\n" + outcome.out));
  }
}
