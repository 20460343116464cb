// deepseek-check --compatibility on what deepseek-convert writes: never refused by the stack it was
// made for, and the commands that the other stacks name lead to them.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <sstream>

#include "tests/core/check/model_fixture.h"
#include "tests/tools/check/compatibility_fixture.h"

namespace {

using namespace ds::test;
using nlohmann::json;
namespace fs = std::filesystem;

void convert(std::vector<std::string> arguments) {
  arguments.emplace_back("--quiet");
  const Outcome outcome = run_program("deepseek-convert", arguments);
  REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
}
std::string nano() { return (source_dir() / "examples" / "nano-v3").string(); }

void expect_taken(std::vector<std::string> arguments, const char* target) {
  arguments.insert(arguments.end(), {"--target", target});
  const Outcome outcome = compatibility(arguments);
  CHECK_MESSAGE(outcome.exit_code == 0, (outcome.err + outcome.out));
}
// The fix of the one finding on the layout.
std::string fix_of(const std::string& path, const char* target) {
  const json document = compatibility_json({path, "--target", target}, 1);
  std::string fix;
  for (const json& finding : document["findings"]) {
    if (finding["name"] == "target-layout") fix = finding["fix"];
  }
  REQUIRE_MESSAGE(!fix.empty(), document.dump());
  return fix;
}
// Runs the commands of a fix, its placeholders being these.
void follow(const std::string& fix, const std::map<std::string, std::string>& places) {
  const std::string program = "deepseek-convert ";
  for (std::size_t at = fix.find(program); at != std::string::npos;) {
    const std::size_t next = fix.find(program, at + 1);
    std::istringstream words(fix.substr(at + program.size(), next - at - program.size()));
    std::vector<std::string> arguments;
    for (std::string word; words >> word && word != "then";) {
      if (word.ends_with(",")) word.pop_back();
      if (const auto place = places.find(word); place != places.end()) word = place->second;
      arguments.push_back(word.substr(0, word.find('|')));
    }
    convert(arguments);
    at = next;
  }
}

}  // namespace

TEST_CASE("GGUF files of examples/nano-v3: llama.cpp takes each, the fix leads to the others") {
  const TempFolder folder("forms-compatibility");
  const std::string file = (folder.root() / "m.gguf").string();
  const std::string parts = (folder.root() / "parts").string();
  for (const char* type : {"f32", "f16", "q8_0", "bf16"}) {
    for (const char* mla : {"unsplit", "split"}) {
      convert(
          {"weights", nano(), file, "--to", "gguf", "--gguf_type", type, "--mla", mla, "--force"});
      expect_taken({file}, "llama.cpp");
    }
  }
  convert({"weights", nano(), parts, "--to", "gguf", "--max_shard_size", "4MB"});
  expect_taken({parts, "--from", "v3"}, "llama.cpp");
  const std::string hf = (folder.root() / "hf").string();
  follow(fix_of(file, "vllm"), {{"IN", file}, {"OUT", hf}});
  for (const char* target : {"transformers", "peft", "vllm", "sglang"}) {
    CHECK(fix_of(file, target) == "deepseek-convert weights IN OUT --to hf");
    expect_taken({hf}, target);
  }
  const std::string shards = (folder.root() / "shards").string();
  fs::remove_all(hf);
  follow(fix_of(file, "deepseek-inference"),
         {{"IN", file}, {"HF", hf}, {"OUT", shards}, {"N", "2"}});
  expect_taken({shards}, "deepseek-inference");
  // Without a target: notes, and a report of every kind.
  const json all = compatibility_json({file, "--hardware", "2xH100"}, 0);
  CHECK(all["summary"]["errors"] == 0);
  const json& fit = all["compatibility"]["fit"][0];
  CHECK(fit["fits"] == true);
  CHECK(fit["weights_bytes"].get<std::uint64_t>() < fs::file_size(file));
  CHECK(fit["tensor_parallel"].empty());
  for (const char* format : {"text", "junit", "sarif"}) {
    CHECK(compatibility({file, "--format", format}).exit_code == 0);
  }
}

TEST_CASE("inference shards of examples/nano-v3: the demo takes them, the fix leads elsewhere") {
  const TempFolder folder("forms-compatibility");
  const std::string shards = (folder.root() / "shards").string();
  convert({"weights", nano(), shards, "--to", "inference", "--mp", "2"});
  expect_taken({shards, "--to", "v3.1"}, "deepseek-inference");
  const std::string file = (folder.root() / "m.gguf").string();
  const std::string hf = (folder.root() / "hf").string();
  follow(fix_of(shards, "llama.cpp"), {{"IN", shards}, {"HF", hf}, {"OUT.gguf", file}});
  expect_taken({file}, "llama.cpp");
  CHECK(fix_of(shards, "sglang") == "deepseek-convert weights IN OUT --to hf");
  expect_taken({hf}, "sglang");
  // Named as the model, it is no checkpoint.
  const json named = compatibility_json({"--model", shards, "--target", "deepseek-inference"}, 0);
  CHECK(named["targets"][0]["kind"] == "inference");

  const json fits = compatibility_json({shards, "--hardware", "2xH100"}, 0);
  CHECK(fits["compatibility"]["fit"][0]["smallest_count"] == 2);
  const json fewer = compatibility_json({shards, "--hardware", "1xH100"}, 0);
  bool warned = false;
  for (const json& finding : fewer["findings"]) {
    warned = warned || (finding["rule"] == "DS338" && finding["severity"] == "warning");
  }
  CHECK(warned);
  CHECK(compatibility({shards, "--hardware", "1xH100", "--fail_on", "warning"}).exit_code == 1);
}

TEST_CASE("GGUF adapters of the shared ones, beside the GGUF model they are for") {
  if (shared_dir().empty()) {
    MESSAGE("skipped: the shared adapters are not there");
    return;
  }
  const TempFolder folder("forms-compatibility");
  const std::string model = (shared_dir() / "goldens" / "tiny-v3" / "tiny-v3").string();
  const std::string file = (folder.root() / "m.gguf").string();
  const std::string adapter = (folder.root() / "a.gguf").string();
  const auto beside = [&](const char* mla) {
    convert({"weights", model, file, "--to", "gguf", "--mla", mla, "--force"});
    // These models come without a tokenizer, which llama.cpp does not load (the converter says so).
    return compatibility({"--model", file, "--adapter", adapter, "--target", "llama.cpp",
                          "--ignore", "target-tokenizer"});
  };
  for (const char* name : {"all", "patterns", "rslora"}) {
    CAPTURE(std::string(name));
    const std::string source = (shared_dir() / "goldens" / "tiny-v3" / "lora" / name).string();
    convert({"adapter", source, adapter, "--to", "gguf_lora", "--model", model, "--force"});
    const Outcome taken = beside("split");
    CHECK_MESSAGE(taken.exit_code == 0, taken.out);
    CHECK(compatibility({"--model", model, "--adapter", adapter, "--target", "peft"}).exit_code ==
          1);
  }
  // kv_b is adapted in `all`: the model must have it split as well.
  const std::string all = (shared_dir() / "goldens" / "tiny-v3" / "lora" / "all").string();
  convert({"adapter", all, adapter, "--to", "gguf_lora", "--model", model, "--force"});
  const Outcome other = beside("unsplit");
  CHECK(other.exit_code == 1);
  CHECK(other.out.find("DS330 target-adapter-keys") != std::string::npos);
}
