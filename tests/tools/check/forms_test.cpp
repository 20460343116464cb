// GGUF files and inference shards that deepseek-convert writes: found, named, listed, and sound.
#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <set>

#include "tests/core/check/model_fixture.h"
#include "tests/support/process.h"

namespace {

using namespace ds::test;
using nlohmann::json;
namespace fs = std::filesystem;

Outcome check(const std::vector<std::string>& arguments) {
  return run_program("deepseek-check", arguments);
}
void convert(std::vector<std::string> arguments) {
  arguments.emplace_back("--quiet");
  const Outcome outcome = run_program("deepseek-convert", arguments);
  REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
}
json check_json(std::vector<std::string> arguments, int exit_code) {
  arguments.insert(arguments.end(), {"--format", "json"});
  const Outcome outcome = check(arguments);
  REQUIRE_MESSAGE(outcome.exit_code == exit_code, outcome.err);
  return json::parse(outcome.out);
}
void expect_sound(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--deep", "--fail_on", "warning"});
  const Outcome outcome = check(arguments);
  CHECK_MESSAGE(outcome.exit_code == 0, outcome.out);
}

const std::string& nano() {
  static const std::string path = (source_dir() / "examples" / "nano-v3").string();
  return path;
}

}  // namespace

TEST_CASE("GGUF files of examples/nano-v3: no rule fires, every tensor is listed") {
  const TempFolder folder("forms-gguf");
  const std::string file = (folder.root() / "m.gguf").string();
  const std::string parts = (folder.root() / "parts").string();
  for (const char* type : {"f32", "bf16", "q8_0"}) {
    convert({"weights", nano(), file, "--to", "gguf", "--gguf_type", type, "--force"});
    expect_sound({file});
  }
  convert(
      {"weights", nano(), parts, "--to", "gguf", "--max_shard_size", "4MB", "--mla", "unsplit"});
  expect_sound({parts});
  const json found = check_json({file, parts}, 0);
  CHECK(found["targets"][0]["kind"] == "gguf");
  CHECK(found["targets"][1]["kind"] == "gguf");
  const json list = check_json({"list", file}, 0);
  const json hf = check_json({"list", nano()}, 0);
  CHECK(list["totals"]["parameters"] == hf["totals"]["parameters"]);
  const json split = check_json({"list", parts}, 0);
  CHECK(split["totals"]["parameters"] == hf["totals"]["parameters"]);
  std::set<std::string> files;
  for (const json& tensor : split["tensors"]) files.insert(tensor["file"]);
  CHECK(files.size() == 4);
  CHECK(split["tensors"][0].contains("dtype"));
  // Spoilt, it is a finding, and no list.
  fs::resize_file(file, fs::file_size(file) - 100);
  CHECK(check_json({file}, 1)["findings"][0]["name"] == "gguf-truncated");
  CHECK(check({"list", file}).exit_code == 3);
  fs::remove(fs::path(parts) / "parts-00002-of-00004.gguf");
  const json missing = check_json({parts}, 1);
  CHECK(missing["findings"][0]["name"] == "gguf-part-missing");
  CHECK(missing["summary"]["errors"] == 1);
}

TEST_CASE("inference shards of examples/nano-v3: no rule fires, copies count once") {
  const TempFolder folder("forms-inference");
  const json hf = check_json({"list", nano()}, 0);
  for (const char* ranks : {"1", "2"}) {
    const std::string path = (folder.root() / ranks).string();
    convert({"weights", nano(), path, "--to", "inference", "--mp", ranks});
    expect_sound({path});
    CHECK(check_json({path}, 0)["targets"][0]["kind"] == "inference");
    CHECK(check_json({"list", path}, 0)["totals"]["parameters"] == hf["totals"]["parameters"]);
    // Of one shard alone nothing is said but what its container shows.
    const std::string shard = path + "/model0-mp" + ranks + ".safetensors";
    expect_sound({shard});
    fs::remove(shard);
  }
  const json missing = check_json({(folder.root() / "2").string(), "--ignore", "tokenizer"}, 1);
  CHECK(missing["findings"][0]["name"] == "inference-shard-missing");
  CHECK(missing["summary"]["errors"] == 1);
}

TEST_CASE("what deepseek-convert makes of the shared models and adapters is sound") {
  if (shared_dir().empty()) {
    MESSAGE("skipped: the shared models are not there");
    return;
  }
  const TempFolder folder("forms-shared");
  const std::string file = (folder.root() / "m.gguf").string();
  const std::string adapter = (folder.root() / "a.gguf").string();
  for (const std::string name : {"tiny-moonlight", "tiny-v2", "tiny-v2-lite", "tiny-v3",
                                 "tiny-v3-fp8", "tiny-v3-fp8-ue8m0"}) {
    CAPTURE(name);
    const std::string model = (shared_dir() / "goldens" / name / name).string();
    for (const char* mla : {"split", "unsplit"}) {
      convert({"weights", model, file, "--to", "gguf", "--mla", mla, "--force"});
      // These models come without a tokenizer, which the converter says too.
      expect_sound({file, "--ignore", "gguf-no-tokenizer"});
      CHECK(check({file, "--select", "gguf-no-tokenizer", "--fail_on", "warning"}).exit_code == 1);
    }
    const std::string shards = (folder.root() / name).string();
    convert({"weights", model, shards, "--to", "inference", "--mp",
             name.find("fp8") == std::string::npos ? "2" : "1"});
    expect_sound({shards});
  }
  const std::string model = (shared_dir() / "goldens" / "tiny-v3" / "tiny-v3").string();
  convert({"weights", model, file, "--to", "gguf", "--force"});
  for (const char* name : {"all", "patterns", "rslora"}) {
    const std::string source = (shared_dir() / "goldens" / "tiny-v3" / "lora" / name).string();
    convert({"adapter", source, adapter, "--to", "gguf_lora", "--model", model, "--force"});
    expect_sound({"--model", model, "--adapter", adapter});
    // The base may be a GGUF file too, whichever is named first.
    expect_sound({adapter, file, "--ignore", "gguf-no-tokenizer"});
    CHECK(check_json({adapter}, 0)["targets"][0]["kind"] == "gguf-adapter");
    CHECK(check_json({"list", adapter}, 0)["totals"]["parameters"] > 0);
  }
  // Another base.
  const std::string other = (shared_dir() / "goldens" / "tiny-v2-lite" / "tiny-v2-lite").string();
  CHECK(check({"--model", other, "--adapter", adapter}).exit_code == 1);
}
