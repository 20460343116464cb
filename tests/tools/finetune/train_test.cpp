// Training runs through the program: products, events, resuming, stages, refusals.
#include <sys/mount.h>
#include <sys/resource.h>

#include <csignal>

#include "libcore/base/atomic_write.h"
#include "libcore/io/safetensors.h"
#include "tests/support/schema.h"
#include "tests/tools/finetune/fixture.h"

using namespace ds::test;
namespace fs = std::filesystem;

namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

void expect_ok(const Outcome& outcome) { CHECK_MESSAGE(outcome.exit_code == 0, outcome.err); }

// Arguments plus more.
std::vector<std::string> plus(std::vector<std::string> arguments,
                              const std::vector<std::string>& more) {
  arguments.insert(arguments.end(), more.begin(), more.end());
  return arguments;
}

const std::vector<std::string> kMixed{"--per_device_train_batch_size",
                                      "2",
                                      "--gradient_accumulation_steps",
                                      "2",
                                      "--packing",
                                      "--cutoff_len",
                                      "32",
                                      "--max_steps",
                                      "10",
                                      "--save_steps",
                                      "5"};

}  // namespace

TEST_CASE("a run writes an adapter, a report, a card and a picture") {
  const Fixture f;
  const Outcome run = finetune(f.train(
      "out", {"--max_steps", "6", "--format", "json", "--eval_dataset", f.path("rows.jsonl")}));
  expect_ok(run);
  const auto result = nlohmann::json::parse(run.out);
  CHECK(result["steps"] == 6);
  CHECK(result["stages"] == 1);
  CHECK(result["final_loss"].get<double>() > 0.0);
  CHECK(result["peak_rss_bytes"].get<double>() > 1e6);
  for (const char* name : {"adapter_config.json", "adapter_model.safetensors", "README.md",
                           "report.jsonl", "training.svg", "checkpoint-6/state.json"}) {
    CHECK_MESSAGE(fs::exists(f.root() / "out" / name), name);
  }
  const auto events = read_events(f.root() / "out" / "report.jsonl");
  CHECK(events.front()["schema"] == "deepseek/run/1");
  CHECK(events.front()["sources"]["max_steps"] == "flag");
  CHECK(events.back()["schema"] == "deepseek/end/1");
  CHECK(events.back()["exit_code"] == 0);
  std::map<std::string, int> kinds;
  for (std::size_t i = 0; i < events.size(); ++i) {
    CHECK(events[i]["seq"] == i);
    ++kinds[events[i]["schema"]];
  }
  CHECK(kinds["deepseek/train-step/1"] == 6);
  CHECK(kinds["deepseek/eval/1"] == 1);
  CHECK(kinds["deepseek/stage/1"] == 1);
  CHECK(kinds["deepseek/data/1"] == 2);
  for (const std::string& problem : validate_report(f.root() / "out" / "report.jsonl")) {
    FAIL_CHECK(problem);
  }
  const std::string card = read_text(f.root() / "out" / "README.md");
  CHECK(has(card, "--max_steps 6"));
  CHECK(has(card, "LoRA r 4"));
  // In a pipe there is no progress line.
  CHECK_FALSE(has(run.err, "\r"));
  const Outcome again = finetune(f.train("out", {"--max_steps", "6"}));
  CHECK(again.exit_code == 2);
  CHECK(has(again.err, "--overwrite_output_dir"));
}

TEST_CASE("dry run writes nothing and says what is needed") {
  const Fixture f;
  const Outcome run = finetune(f.train("out", {"--max_steps", "6", "--dry_run"}));
  expect_ok(run);
  CHECK(has(run.out, "memory"));
  CHECK(has(run.out, "trains"));
  CHECK_FALSE(fs::exists(f.root() / "out"));
}

TEST_CASE("10 steps = 5 + resume 5, byte for byte") {
  const Fixture f;
  const std::vector<std::vector<std::string>> methods{
      {"--peft_method", "lora", "--lora_dropout", "0.2"},
      {"--peft_method", "lora_plus", "--lora_dropout", "0.2", "--lora_target", "all"},
      {"--peft_method", "lora_plus", "--lora_target", "embed_tokens,o_proj,lm_head"},
      {"--peft_method", "lora", "--use_dora", "--lora_target", "attention"},
      {"--peft_method", "full"}};
  for (const auto& method : methods) {
    CAPTURE(method[1]);
    fs::remove_all(f.root() / "straight");
    fs::remove_all(f.root() / "resumed");
    const auto arguments = [&](const std::string& output) {
      return plus(plus(f.train(output), kMixed), method);
    };
    expect_ok(finetune(arguments("straight")));
    fs::create_directories(f.root() / "resumed");
    fs::copy(f.root() / "straight" / "checkpoint-5", f.root() / "resumed" / "checkpoint-5",
             fs::copy_options::recursive);
    const Outcome resumed =
        finetune(plus(arguments("resumed"), {"--resume_from_checkpoint", "latest"}));
    expect_ok(resumed);
    CHECK(has(resumed.err, "resuming at step 5 of 10"));
    const char* weights = method[1] == "full" ? "model.safetensors" : "adapter_model.safetensors";
    CHECK(read_text(f.root() / "straight" / weights) == read_text(f.root() / "resumed" / weights));
    // Killed after the last checkpoint and before the product: only that is written.
    fs::remove(f.root() / "resumed" / weights);
    expect_ok(finetune(plus(arguments("resumed"), {"--resume_from_checkpoint", "latest"})));
    CHECK(read_text(f.root() / "straight" / weights) == read_text(f.root() / "resumed" / weights));
    CHECK(finetune(plus(arguments("resumed"), {"--resume_from_checkpoint", "latest"})).exit_code ==
          3);
    for (const char* name : {"optimizer.safetensors", "state.json"}) {
      CHECK(read_text(f.root() / "straight" / "checkpoint-10" / name) ==
            read_text(f.root() / "resumed" / "checkpoint-10" / name));
    }
    // Recomputing activations does not change a bit either.
    for (const char* keep : {"selective", "full"}) {
      CAPTURE(keep);
      expect_ok(finetune(plus(arguments("recomputed"),
                              {"--activation_checkpointing", keep, "--overwrite_output_dir"})));
      CHECK(read_text(f.root() / "straight" / weights) ==
            read_text(f.root() / "recomputed" / weights));
    }
  }
}

TEST_CASE("a resume refuses what is not the same run") {
  const Fixture f;
  const auto arguments = plus(f.train("out"), kMixed);
  expect_ok(finetune(arguments));
  const auto resume = [&](const std::string& checkpoint, const std::vector<std::string>& more) {
    return finetune(plus(
        plus(f.train("out"), {"--per_device_train_batch_size", "2", "--gradient_accumulation_steps",
                              "2", "--packing", "--cutoff_len", "32", "--max_steps", "12"}),
        plus({"--resume_from_checkpoint", checkpoint}, more)));
  };
  const Outcome finished = finetune(plus(arguments, {"--resume_from_checkpoint", "latest"}));
  CHECK(finished.exit_code == 3);
  CHECK(has(finished.err, "at step 10 of 10"));
  CHECK(has(finished.err, "--max_steps"));
  CHECK(has(finished.err, "--adapter"));

  const Outcome setting = resume("latest", {"--seed", "43"});
  CHECK(setting.exit_code == 3);
  CHECK(has(setting.err, "seed"));

  // A flipped byte, a truncated file, a missing file: refused by name; latest falls back.
  const fs::path state = f.root() / "out" / "checkpoint-10" / "optimizer.safetensors";
  std::string bytes = read_text(state);
  bytes[bytes.size() / 2] = static_cast<char>(bytes[bytes.size() / 2] ^ 1);
  write_text(state, bytes);
  const Outcome flipped = resume((f.root() / "out" / "checkpoint-10").string(), {});
  CHECK(flipped.exit_code == 3);
  CHECK(has(flipped.err, "optimizer.safetensors"));
  const Outcome fallback = resume("latest", {});
  expect_ok(fallback);
  CHECK(has(fallback.err, "skipped checkpoint-10"));
  CHECK(has(fallback.err, "resuming at step 5 of 12"));

  const std::string rows = read_text(f.root() / "rows.jsonl");
  write_text(f.root() / "rows.jsonl", rows + rows.substr(0, rows.find('\n') + 1));
  const Outcome data = resume((f.root() / "out" / "checkpoint-5").string(), {});
  CHECK(data.exit_code == 3);
  CHECK(has(data.err, "dataset"));
  write_text(f.root() / "rows.jsonl", rows);
  write_tiny_model(f.root() / "model", {.layers = 4});
  const Outcome model = resume((f.root() / "out" / "checkpoint-5").string(), {});
  CHECK(model.exit_code == 3);
  CHECK(has(model.err, "model"));
  CHECK(resume(f.path("nowhere"), {}).exit_code == 3);
}

TEST_CASE("stages: boundaries, factors, targets, and a resume across an unfreeze") {
  const Fixture f;
  const std::vector<std::string> staged{"--stage_steps",       "3,6,9",
                                        "--stage_lr_factors",  "1,0.5,0.1",
                                        "--stage_targets",     "attention;attention,experts;all",
                                        "--lr_scheduler_type", "constant",
                                        "--save_steps",        "0",
                                        "--peft_method",       "lora_plus"};
  expect_ok(finetune(f.train("straight", staged)));
  std::vector<double> rates;
  std::vector<int> stages;
  for (const auto& event : read_events(f.root() / "straight" / "report.jsonl")) {
    if (event["schema"] != "deepseek/train-step/1") continue;
    rates.push_back(event["lr_a"]);
    stages.push_back(event["stage"]);
  }
  CHECK(stages == std::vector<int>{1, 1, 1, 2, 2, 2, 3, 3, 3});
  CHECK(rates[0] == doctest::Approx(1e-3));
  CHECK(rates[4] == doctest::Approx(5e-4));
  CHECK(rates[8] == doctest::Approx(1e-4));
  // What a later stage trains is there from the start, with B = 0.
  const auto first = ds::SafetensorsFile::open(f.root() / "straight" / "checkpoint-3" /
                                               "adapter_model.safetensors");
  const auto last = ds::SafetensorsFile::open(f.root() / "straight" / "adapter_model.safetensors");
  const auto moved = [](const ds::SafetensorsFile& file, const std::string& module) {
    const auto* info = file.find("base_model.model.model.layers.0." + module + ".lora_B.weight");
    REQUIRE(info != nullptr);
    const auto* bytes = file.data(*info);
    return std::any_of(bytes, bytes + info->bytes(), [](std::byte b) { return b != std::byte{0}; });
  };
  CHECK(moved(first, "self_attn.o_proj"));
  CHECK_FALSE(moved(first, "mlp.down_proj"));
  CHECK(moved(last, "mlp.down_proj"));

  for (const char* checkpoint : {"checkpoint-3", "checkpoint-6"}) {
    fs::remove_all(f.root() / "resumed");
    fs::create_directories(f.root() / "resumed");
    fs::copy(f.root() / "straight" / checkpoint, f.root() / "resumed" / checkpoint,
             fs::copy_options::recursive);
    expect_ok(finetune(plus(f.train("resumed", staged), {"--resume_from_checkpoint", "latest"})));
    CHECK(read_text(f.root() / "straight" / "adapter_model.safetensors") ==
          read_text(f.root() / "resumed" / "adapter_model.safetensors"));
  }
  const Outcome curriculum =
      finetune(f.train("curriculum", {"--stage_steps", "2,4", "--stage_data", "curriculum"}));
  expect_ok(curriculum);
  const Outcome wrong =
      finetune(f.train("wrong", {"--stage_steps", "2,4", "--stage_lr_factors", "1,0.5,0.1"}));
  CHECK(wrong.exit_code == 2);
  CHECK(has(wrong.err, "2 stages"));
}

TEST_CASE("kill -9 at random moments: the newest checkpoint always loads, the result is the same") {
  const Fixture f;
  const std::vector<std::string> busy{"--max_steps",        "200", "--save_steps", "1",
                                      "--save_total_limit", "2"};
  expect_ok(finetune(f.train("straight", busy)));
  const ds::Rng rng(5, 5);
  int kills = 0;
  int resumes = 0;
  for (std::uint64_t round = 0; round < 200; ++round) {
    auto arguments = f.train("killed", busy);
    std::error_code none;
    bool any = false;
    if (fs::exists(f.root() / "killed", none)) {
      for (const auto& entry : fs::directory_iterator(f.root() / "killed")) {
        any = any || entry.path().filename().string().rfind("checkpoint-", 0) == 0;
      }
    }
    arguments = any ? plus(arguments, {"--resume_from_checkpoint", "latest"})
                    : plus(arguments, {"--overwrite_output_dir"});
    resumes += any ? 1 : 0;
    const Outcome run =
        finetune(arguments,
                 // Longer with every round, so that a slow machine gets to the end too.
                 {.signal_after_ms = 30 + static_cast<int>(rng.bits(round) % 250 + 10 * round),
                  .signal = SIGKILL});
    if (run.exit_code == 0) break;
    REQUIRE_MESSAGE(run.exit_code == 128 + SIGKILL, run.err);
    ++kills;
  }
  MESSAGE(kills << " kills, " << resumes << " resumes");
  CHECK(kills >= 3);
  CHECK(read_text(f.root() / "straight" / "adapter_model.safetensors") ==
        read_text(f.root() / "killed" / "adapter_model.safetensors"));
}

TEST_CASE("SIGINT stops after the update, saves, and the run goes on") {
  const Fixture f;
  const std::vector<std::string> lasting{"--max_steps", "100000", "--save_steps", "0"};
  const Outcome run = finetune(f.train("out", lasting), {.signal_after_ms = 700, .signal = SIGINT});
  CHECK(run.exit_code == 130);
  CHECK(has(run.err, "--resume_from_checkpoint latest"));
  CHECK(read_events(f.root() / "out" / "report.jsonl").back()["exit_code"] == 130);
  CHECK(validate_report(f.root() / "out" / "report.jsonl").empty());
  const Outcome resumed =
      finetune(plus(f.train("out", lasting), {"--resume_from_checkpoint", "latest"}),
               {.signal_after_ms = 700, .signal = SIGTERM});
  CHECK(resumed.exit_code == 130);
  CHECK(has(resumed.err, "resuming at step"));
}

TEST_CASE("a file-size limit is a write error: exit 4, nothing half written") {
  const Fixture f;
  expect_ok(finetune(f.train("whole", {"--max_steps", "5"})));
  const auto optimizer =
      fs::file_size(f.root() / "whole" / "checkpoint-5" / "optimizer.safetensors");
  const auto limited = [optimizer] {
    const rlimit limit{optimizer / 2, optimizer / 2};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  };
  const Outcome full =
      finetune(f.train("out", {"--max_steps", "20", "--save_steps", "5"}), {.in_child = limited});
  CHECK(full.exit_code == 4);
  CHECK(has(full.err, "error:"));
  for (const auto& entry : fs::directory_iterator(f.root() / "out")) {
    const std::string name = entry.path().filename().string();
    CHECK_MESSAGE(name.rfind("checkpoint-", 0) != 0, name);
  }
}

TEST_CASE("a full disk stops with exit 4; the last good checkpoint goes on when there is room") {
  const Fixture f;
  const std::vector<std::string> saving{"--max_steps", "20", "--save_steps", "5"};
  expect_ok(finetune(f.train("whole", saving)));
  std::uintmax_t checkpoint = 0;
  for (const auto& entry : fs::directory_iterator(f.root() / "whole" / "checkpoint-5")) {
    checkpoint += fs::file_size(entry) + 4096;
  }
  const fs::path disk = f.root() / "disk";
  fs::create_directory(disk);
  const std::string room = "size=" + std::to_string(checkpoint * 3 / 2);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, room.c_str()) != 0) {
    MESSAGE("skipped: mounting a small tmpfs is not permitted");
    return;
  }
  const Outcome full = finetune(f.train("disk/out", saving));
  const bool kept = fs::exists(disk / "out" / "checkpoint-5" / "state.json");
  const bool half = fs::exists(disk / "out" / "checkpoint-10");
  REQUIRE(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=256m") == 0);
  const Outcome resumed =
      finetune(plus(f.train("disk/out", saving), {"--resume_from_checkpoint", "latest"}));
  const auto bytes = [](const fs::path& folder) {
    return ds::read_file(folder / "adapter_model.safetensors");
  };
  const bool same = resumed.exit_code == 0 && bytes(disk / "out") == bytes(f.root() / "whole");
  ::umount(disk.c_str());
  CHECK(full.exit_code == 4);
  CHECK(has(full.err, "No space left on device"));
  CHECK(kept);
  CHECK_FALSE(half);
  CHECK_MESSAGE(resumed.exit_code == 0, resumed.err);
  CHECK(same);
}

TEST_CASE("a damaged base is named, divergence is exit 1") {
  const Fixture f;
  {
    const auto file = ds::SafetensorsFile::open(f.root() / "model" / "model.safetensors");
    const auto* info = file.find("model.layers.1.self_attn.o_proj.weight");
    std::fstream out(f.root() / "model" / "model.safetensors",
                     std::ios::in | std::ios::out | std::ios::binary);
    out.seekp(static_cast<std::streamoff>(info->begin + 4 * 70));
    const float nan = std::numeric_limits<float>::quiet_NaN();
    out.write(reinterpret_cast<const char*>(&nan), 4);
  }
  const Outcome damaged = finetune(f.train("out", {"--max_steps", "3"}));
  CHECK(damaged.exit_code == 3);
  CHECK(has(damaged.err, "model.layers.1.self_attn.o_proj.weight"));
  CHECK(has(damaged.err, "[1, 6]"));
  CHECK(has(damaged.err, "step 1"));
  CHECK(has(damaged.err, "lines"));

  const Fixture good;
  const Outcome diverged = finetune(
      good.train("out", {"--max_steps", "40", "--learning_rate", "1e30", "--lr_scheduler_type",
                         "constant", "--max_grad_norm", "0", "--save_steps", "1"}));
  CHECK(diverged.exit_code == 1);
  CHECK(has(diverged.err, "not finite"));
  CHECK(read_events(good.root() / "out" / "report.jsonl").back()["exit_code"] == 1);
}

TEST_CASE("too little memory is exit 5 with the numbers") {
  const Fixture f;
  const Outcome limit = finetune(f.train("out", {"--max_steps", "3", "--memory_limit", "100KB"}));
  CHECK(limit.exit_code == 5);
  CHECK(has(limit.err, "needs"));
  CHECK(has(limit.err, "available"));
  CHECK_FALSE(fs::exists(f.root() / "out"));
}

TEST_CASE("wrong inputs are named") {
  const Fixture f;
  const auto code_and = [&](std::vector<std::string> arguments, int code, const std::string& part) {
    const Outcome run = finetune(arguments);
    CHECK_MESSAGE(run.exit_code == code, run.err);
    CHECK_MESSAGE(has(run.err, part), run.err);
  };
  code_and(f.train("out", {"--lora_target", "q_proj,v_proj"}), 2, "q_a_proj");
  code_and(f.train("out", {"--model", f.path("nowhere")}), 3, "nowhere");
  write_text(f.root() / "empty.jsonl", "");
  code_and(f.train("out", {"--dataset", f.path("empty.jsonl")}), 3, "empty.jsonl");
  write_text(f.root() / "masked.jsonl", "{\"input_ids\": [5, 6], \"labels\": [-100, -100]}\n");
  code_and(f.train("out", {"--dataset", f.path("masked.jsonl")}), 3, "target");
  write_text(f.root() / "high.jsonl", "{\"input_ids\": [5, 600]}\n");
  code_and(f.train("out", {"--dataset", f.path("high.jsonl")}), 3, "600");
  for (const auto& [type, architecture, part] :
       {std::tuple{"qwen2", "Qwen2ForCausalLM", "Qwen2"},
        std::tuple{"deepseek_v32", "DeepseekV32ForCausalLM", "V3.2"},
        std::tuple{"deepseek_vl_v2", "DeepseekVLV2ForCausalLM", "DeepseekVLV2ForCausalLM"}}) {
    auto config = nlohmann::json::parse(tiny_config({}));
    config["model_type"] = type;
    config["architectures"] = {architecture};
    fs::create_directories(f.root() / "other");
    write_text(f.root() / "other" / "config.json", config.dump());
    code_and(f.train("out", {"--model", f.path("other")}), 3, part);
  }
  fs::remove(f.root() / "model" / "model.safetensors");
  code_and(f.train("out"), 3, "model");
  CHECK_FALSE(fs::exists(f.root() / "out"));
}

TEST_CASE("a C locale and a path with other letters do not matter") {
  const Fixture f;
  const Outcome run = finetune(f.train("Ausgabe-\xC3\xA4\xE5\x8C\xBB", {"--max_steps", "2"}),
                               {.environment = {{"LC_ALL", "C"}, {"LANG", "C"}}});
  expect_ok(run);
  const auto events = read_events(f.root() / "Ausgabe-\xC3\xA4\xE5\x8C\xBB" / "report.jsonl");
  CHECK(events.back()["exit_code"] == 0);
}

TEST_CASE("a streamed base gives the same bytes, resumed or not") {
  const Fixture f;
  const auto with = [&](const std::string& out, const std::vector<std::string>& more) {
    return f.train(out, plus(more, {"--max_steps", "4", "--gradient_accumulation_steps", "3",
                                    "--lora_dropout", "0.1", "--save_steps", "2"}));
  };
  expect_ok(finetune(with("plain", {})));
  const std::string expected = read_text(f.root() / "plain" / "adapter_model.safetensors");
  const Outcome streamed = finetune(with("streamed", {"--weight_streaming", "always"}));
  expect_ok(streamed);
  CHECK_MESSAGE(has(streamed.err, "layer by layer"), streamed.err);
  CHECK(read_text(f.root() / "streamed" / "adapter_model.safetensors") == expected);

  // Memory options may change between the parts of a run.
  fs::remove_all(f.root() / "streamed" / "checkpoint-4");
  fs::remove(f.root() / "streamed" / "adapter_model.safetensors");
  expect_ok(finetune(with(
      "streamed", {"--resume_from_checkpoint", "latest", "--activation_checkpointing", "full"})));
  CHECK(read_text(f.root() / "streamed" / "adapter_model.safetensors") == expected);

  const Outcome contradiction =
      finetune(with("full", {"--weight_streaming", "always", "--peft_method", "full"}));
  CHECK(contradiction.exit_code == 2);
  CHECK(has(contradiction.err, "--weight_streaming"));
}

TEST_CASE("the plan says what memory, disk and arithmetic an update takes") {
  const Fixture f;
  const auto plan = [&](const std::vector<std::string>& more) {
    const Outcome run =
        finetune(f.train("none", plus(more, {"--dry_run", "--format", "json", "--max_steps", "2",
                                             "--gradient_accumulation_steps", "2"})));
    expect_ok(run);
    return nlohmann::json::parse(run.out);
  };
  const auto whole = plan({});
  CHECK(whole["memory"]["streamed"] == false);
  CHECK(whole["memory"]["recompute"] == "none");
  CHECK(whole["step"]["disk_bytes"] == 0);
  CHECK(whole["step"]["binding"] == "arithmetic");
  CHECK(whole["step"]["seconds"].get<double>() > 0.0);
  const auto streamed =
      plan({"--weight_streaming", "always", "--activation_checkpointing", "full"});
  CHECK(streamed["memory"]["streamed"] == true);
  const double base = streamed["memory"]["base_bytes"];
  CHECK(streamed["memory"]["window_bytes"].get<double>() < base);
  CHECK(whole["memory"]["window_bytes"] == 0);
  // Forward and backward walk over everything but the embedding.
  CHECK(streamed["step"]["disk_bytes"].get<double>() > base);
  CHECK(streamed["step"]["disk_bytes"].get<double>() < 2.0 * base);
  CHECK(streamed["step"]["flops"].get<double>() == 1.5 * whole["step"]["flops"].get<double>());
  CHECK_FALSE(fs::exists(f.root() / "none"));
}

TEST_CASE("a memory limit is kept by recomputing, and said") {
  const Fixture f;
  const auto needed = [&](const std::string& recompute) {
    const Outcome run =
        finetune(f.train("none", {"--dry_run", "--format", "json", "--per_device_train_batch_size",
                                  "64", "--activation_checkpointing", recompute}));
    expect_ok(run);
    return nlohmann::json::parse(run.out)["memory"]["needed_bytes"].get<std::int64_t>();
  };
  const std::int64_t none = needed("none");
  const std::int64_t full = needed("full");
  REQUIRE(full < none);
  const std::string limit = std::to_string((none + full) / 2);
  const Outcome run = finetune(f.train("out", {"--max_steps", "2", "--per_device_train_batch_size",
                                               "64", "--memory_limit", limit, "--format", "json"}));
  expect_ok(run);
  CHECK_MESSAGE(has(run.err, "memory is short"), run.err);
  CHECK(nlohmann::json::parse(run.out)["peak_rss_bytes"].get<std::int64_t>() <= std::stoll(limit));
}

TEST_CASE(
    "selective computation: reported, resumed to the same bytes, refused where it means nothing") {
  const Fixture f;
  write_text(f.root() / "guide.yaml",
             "training:\n  memory_optimization:\n    selective_computation:\n      threshold: 0.6\n"
             "      refresh: 4\n      decay: 0.5\n");
  const auto with = [&](const std::string& out, const std::vector<std::string>& more) {
    return f.train(out, plus(more, {"--config", f.path("guide.yaml"), "--save_steps", "6"}));
  };
  const Outcome whole = finetune(with("whole", {"--max_steps", "10", "--format", "json"}));
  expect_ok(whole);
  const auto product = nlohmann::json::parse(whole.out)["selective_computation"];
  CHECK(product["refresh"]["steps"] == 3);
  CHECK(product["selective"]["steps"] == 7);
  CHECK(product["selective"]["activation_bytes"] < product["refresh"]["activation_bytes"]);
  CHECK(product["computed_share"].get<double>() < 1.0);
  std::size_t step = 0;
  for (const auto& event : read_events(f.root() / "whole" / "report.jsonl")) {
    if (event["schema"] != "deepseek/train-step/1") continue;
    CHECK(event["skipped_layers"].empty() == (step % 4 == 0));
    CHECK_FALSE(event["computed_layers"].empty());
    ++step;
  }
  CHECK(step == 10);

  expect_ok(finetune(with("parts", {"--max_steps", "10"})));
  fs::remove_all(f.root() / "parts" / "checkpoint-10");
  fs::remove(f.root() / "parts" / "adapter_model.safetensors");
  expect_ok(finetune(with("parts", {"--max_steps", "10", "--resume_from_checkpoint", "latest"})));
  CHECK(read_text(f.root() / "parts" / "adapter_model.safetensors") ==
        read_text(f.root() / "whole" / "adapter_model.safetensors"));
  const Outcome other =
      finetune(f.train("parts", {"--max_steps", "12", "--resume_from_checkpoint", "latest"}));
  CHECK(other.exit_code == 3);
  CHECK_MESSAGE(has(other.err, "selective_computation"), other.err);

  const Outcome full = finetune(with("full", {"--peft_method", "full"}));
  CHECK(full.exit_code == 2);
  CHECK(has(full.err, "selective_computation"));
  // A plan without the run: what it will do, and the same refusals.
  const Outcome dry = finetune(with("dry", {"--max_steps", "10", "--dry_run", "--format", "json"}));
  expect_ok(dry);
  const auto planned = nlohmann::json::parse(dry.out)["selective_computation"];
  CHECK(planned["computed_share"].get<double>() == product["computed_share"].get<double>());
  for (const auto& [flag, value] : std::vector<std::pair<std::string, std::string>>{
           {"threshold", "1.5"}, {"threshold", "nan"}, {"refresh", "0"}, {"decay", "1"}}) {
    CAPTURE(flag);
    const std::string name = "--selective_computation_" + flag;
    const Outcome refused = finetune(with("dry", {name, value, "--max_steps", "1", "--dry_run"}));
    CHECK(refused.exit_code == 2);
    CHECK_MESSAGE(has(refused.err, name + " " + value), refused.err);
  }
  for (const auto& [flag, value] : std::vector<std::pair<std::string, std::string>>{
           {"--selective_computation_refresh", "5"}, {"--selective_computation_decay", "0.5"}}) {
    const Outcome alone = finetune(f.train("dry", {flag, value, "--max_steps", "1", "--dry_run"}));
    CHECK(alone.exit_code == 2);
    CHECK_MESSAGE(has(alone.err, flag), alone.err);
  }
  const Outcome range =
      finetune(f.train("range", {"--selective_computation_threshold", "1.5", "--max_steps", "1"}));
  CHECK(range.exit_code == 2);
  CHECK(has(range.err, "1.5"));
  CHECK_FALSE(fs::exists(f.root() / "range" / "adapter_model.safetensors"));
}
