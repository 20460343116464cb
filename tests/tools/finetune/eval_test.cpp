// eval, generate and info on the shipped small model.
#include "libcore/io/safetensors.h"
#include "tests/support/schema.h"
#include "tests/tools/finetune/fixture.h"

using namespace ds::test;
namespace fs = std::filesystem;

namespace {

std::string nano() { return (source_dir() / "examples" / "nano-v3").string(); }

}  // namespace

TEST_CASE("info counts what an adapter would train") {
  const Outcome info = finetune({"info", "--model", nano(), "--format", "json"});
  CHECK(info.exit_code == 0);
  const auto json = nlohmann::json::parse(info.out);
  CHECK(json["architecture"] == "DeepseekV3ForCausalLM");
  CHECK(json["trainable_parameters"] == 689664);
  CHECK(json["trainable_by_kind"]["experts"] == 552960);
  const Outcome budget =
      finetune({"info", "--model", nano(), "--format", "json", "--trainable_budget", "3%"});
  const auto chosen = nlohmann::json::parse(budget.out);
  CHECK(chosen["lora_r"] == 2);
  CHECK(chosen["trainable_share"].get<double>() < 0.03);
}

TEST_CASE("eval: loss, exact match, choice, logits") {
  const auto folder = make_temp_dir("eval");
  const auto source = source_dir() / "examples" / "intent" / "intent_test_300.jsonl";
  std::ifstream in(source);
  std::string line;
  std::string few;
  for (int i = 0; i < 20 && std::getline(in, line); ++i) few += line + "\n";
  write_text(folder / "few.jsonl", few);
  for (const std::string metric : {"loss", "exact_match", "choice"}) {
    CAPTURE(metric);
    const Outcome run = finetune(
        {"eval", "--model", nano(), "--dataset", (folder / "few.jsonl").string(), "--metric",
         metric, "--max_new_tokens", "12", "--format", "json", "--predictions",
         (folder / (metric + ".jsonl")).string(), "--report", (folder / "report.jsonl").string()});
    REQUIRE_MESSAGE(run.exit_code == 0, run.err);
    const auto json = nlohmann::json::parse(run.out);
    CHECK(json["n"] == 20);
    CHECK(validate_report(folder / "report.jsonl").empty());
    CHECK(json["metric"] == metric);
    CHECK(json["loss"].get<double>() > 3.0);
    CHECK(json["interval"][0].get<double>() <= json["value"].get<double>());
    CHECK(json["interval"][1].get<double>() >= json["value"].get<double>());
    if (metric != "loss") CHECK(read_events(folder / (metric + ".jsonl")).size() == 20);
  }
  write_text(folder / "ids.jsonl", "{\"input_ids\": [0, 5, 9]}\n{\"input_ids\": [0, 7]}\n");
  const Outcome dump =
      finetune({"eval", "--model", nano(), "--dataset", (folder / "ids.jsonl").string(),
                "--dump_logits", (folder / "logits.safetensors").string()});
  REQUIRE_MESSAGE(dump.exit_code == 0, dump.err);
  const auto file = ds::SafetensorsFile::open(folder / "logits.safetensors");
  const auto* info = file.find("logits");
  REQUIRE(info != nullptr);
  CHECK(info->shape == std::vector<std::int64_t>{2, 3, 4096});
  fs::remove_all(folder);
}

TEST_CASE("generate streams text and takes messages") {
  const auto folder = make_temp_dir("generate");
  const Outcome text = finetune(
      {"generate", "--model", nano(), "--prompt", "what is 2 plus 3", "--max_new_tokens", "8"});
  CHECK_MESSAGE(text.exit_code == 0, text.err);
  CHECK(text.out.size() > 1);
  CHECK(text.out.back() == '\n');
  write_text(folder / "messages.json",
             "[{\"role\": \"system\", \"content\": \"Be brief.\"},"
             " {\"role\": \"user\", \"content\": \"hello\"}]");
  const Outcome chat = finetune({"generate", "--model", nano(), "--messages",
                                 (folder / "messages.json").string(), "--max_new_tokens", "8",
                                 "--format", "json", "--temperature", "0.8", "--seed", "3"});
  CHECK_MESSAGE(chat.exit_code == 0, chat.err);
  const auto json = nlohmann::json::parse(chat.out);
  CHECK(json["tokens"].get<int>() >= 1);
  CHECK(finetune({"generate", "--model", nano()}).exit_code == 2);
  fs::remove_all(folder);
}

TEST_CASE("a short run on the intent task lowers the held-out loss") {
  const auto folder = make_temp_dir("intent");
  const auto intent = source_dir() / "examples" / "intent";
  const auto held_out = [&](const std::vector<std::string>& more) {
    std::vector<std::string> arguments{
        "eval",     "--model", nano(), "--dataset", (intent / "intent_test_300.jsonl").string(),
        "--format", "json"};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome run = finetune(arguments);
    REQUIRE_MESSAGE(run.exit_code == 0, run.err);
    return nlohmann::json::parse(run.out)["loss"].get<double>();
  };
  const std::string output = (folder / "out").string();
  const Outcome run =
      finetune({"--model", nano(), "--dataset", (intent / "intent_train_500.jsonl").string(),
                "--output_dir", output, "--peft_method", "lora_plus", "--learning_rate", "5e-4",
                "--per_device_train_batch_size", "16", "--max_steps", "12"});
  REQUIRE_MESSAGE(run.exit_code == 0, run.err);
  CHECK(held_out({"--adapter", output}) < held_out({}) - 2.0);
  fs::remove_all(folder);
}
