#include "libcore/train/checkpoint_state.h"

#include <limits>
#include <nlohmann/json.hpp>

#include "libcore/base/hash.h"
#include "libcore/train/checkpoint_folder.h"
#include "tests/core/train/checkpoint_fixture.h"

namespace {

using namespace ds::test;
using ds::ExitCode;
using ds::RunIdentity;

const std::vector<std::string> kFiles = {"adapter_config.json", "adapter_model.safetensors",
                                         "optimizer.safetensors", "state.json"};

TEST_CASE("a checkpoint gives back every bit of the state") {
  TempFolder output;
  TrainedState saved;
  const auto folder = save(output.path / "run", saved, 5);
  CHECK(folder == output.path / "run" / "checkpoint-5");
  CHECK(names(folder) == kFiles);
  CHECK(names(output.path / "run") == std::vector<std::string>{"checkpoint-5"});

  TrainedState loaded;
  const auto where = ds::load_checkpoint(folder, identity(), loaded.optimizer());
  CHECK(loaded.state_bytes() == saved.state_bytes());
  CHECK_FALSE(loaded.optimizer().states()[2].exp_avg);
  const auto wanted = position(5);
  CHECK(where.step == wanted.step);
  CHECK(where.total_steps == wanted.total_steps);
  CHECK(where.stage == wanted.stage);
  CHECK(where.epoch == wanted.epoch);
  CHECK(where.row == wanted.row);
  CHECK(where.loss_ema == wanted.loss_ema);
}

TEST_CASE("loading replaces what the optimizer had") {
  TempFolder output;
  TrainedState saved;
  const auto folder = save(output.path, saved, 1);  // the second and fourth have no update yet
  TrainedState loaded;
  loaded.set(50);
  ds::load_checkpoint(folder, identity(), loaded.optimizer());
  CHECK(loaded.state_bytes() == saved.state_bytes());
}

TEST_CASE("equal states give equal bytes") {
  TempFolder one;
  TempFolder two;
  TrainedState a;
  TrainedState b;
  const auto first = save(one.path, a, 12);
  save(two.path, b, 3);
  const auto second = save(two.path, b, 12);
  for (const std::string& file : kFiles)
    CHECK(file_bytes(first / file) == file_bytes(second / file));
}

TEST_CASE("loss_ema survives when it is no number") {
  TempFolder output;
  TrainedState state;
  state.set(1);
  auto where = position(1);
  where.loss_ema = std::nan("");
  const auto folder =
      ds::save_checkpoint(output.path, where, identity(), state.optimizer(), state.writer(), 0);
  CHECK(std::isnan(ds::load_checkpoint(folder, identity(), state.optimizer()).loss_ema));
}

TEST_CASE("every changed byte is noticed and the file is named") {
  TempFolder output;
  TrainedState state;
  const auto folder = save(output.path, state, 4);
  for (const std::string& file : kFiles) {
    CAPTURE(file);
    const std::string bytes = file_bytes(folder / file);
    // Every byte of the state, some of the larger files.
    const std::size_t stride = file == "state.json" ? 1 : bytes.size() / 40 + 1;
    for (std::size_t at = 0; at < bytes.size(); at += stride) {
      CAPTURE(at);
      std::string changed = bytes;
      changed[at] = static_cast<char>(changed[at] ^ 1);
      overwrite(folder / file, changed);
      if (!has(refusal(folder, identity()), file)) break;
    }
    overwrite(folder / file, bytes);
    for (const std::size_t size : {bytes.size() - 1, bytes.size() / 2, std::size_t{0}}) {
      fs::resize_file(folder / file, size);
      CHECK(has(refusal(folder, identity()), file));
      overwrite(folder / file, bytes);
    }
    if (file != "state.json") {
      fs::resize_file(folder / file, bytes.size() - 1);
      CHECK(has(refusal(folder, identity()), "was truncated"));
      overwrite(folder / file, bytes + "x");
      CHECK(has(refusal(folder, identity()), "was changed"));
      overwrite(folder / file, bytes);
    }
    fs::rename(folder / file, output.path / "aside");
    const auto text = refusal(folder, identity());
    CHECK(has(text, file));
    CHECK(has(text, "is missing"));
    fs::rename(output.path / "aside", folder / file);
  }
  TrainedState loaded;
  ds::load_checkpoint(folder, identity(), loaded.optimizer());
  CHECK(has(refusal(output.path / "checkpoint-9", identity()), "is no checkpoint folder"));
}

TEST_CASE("another run is refused, naming what differs") {
  TempFolder output;
  TrainedState state;
  const auto folder = save(output.path, state, 4);
  RunIdentity other = identity();
  SUBCASE("model") {
    other.model_digest = std::string(64, 'c');
    CHECK(has(refusal(folder, other), "another model"));
  }
  SUBCASE("dataset") {
    other.dataset_digest = std::string(64, 'c');
    CHECK(has(refusal(folder, other), "another dataset"));
  }
  SUBCASE("one setting") {
    other.settings["seed"] = "43";
    const auto text = refusal(folder, other);
    CHECK(has(text, "setting 'seed' was '42', is '43'"));
    CHECK(text.find("threads") == std::string::npos);
  }
  SUBCASE("two settings") {
    other.settings["seed"] = "43";
    other.settings["threads"] = "1";
    CHECK(has(refusal(folder, other),
              "setting 'seed' was '42', is '43'; setting 'threads' was '2', is '1'"));
  }
  SUBCASE("a setting that was not there") {
    other.settings["packing"] = "true";
    CHECK(has(refusal(folder, other), "setting 'packing' was not set, is 'true'"));
  }
  SUBCASE("a setting that is gone") {
    other.settings.erase("seed");
    CHECK(has(refusal(folder, other), "setting 'seed' was '42', is not set"));
  }
  SUBCASE("settings with bytes that are no UTF-8 can be saved and compared") {
    RunIdentity run = identity();
    run.settings["dataset"] = "caf\xe9.jsonl";
    const auto saved =
        ds::save_checkpoint(output.path, position(6), run, state.optimizer(), state.writer(), 0);
    ds::load_checkpoint(saved, run, state.optimizer());
    run.settings["dataset"] = "cafe.jsonl";
    CHECK(has(refusal(saved, run), "setting 'dataset'"));
  }
}

TEST_CASE("moments of other parameters are refused") {
  TempFolder output;
  TrainedState state;
  const auto folder = save(output.path, state, 4);
  SUBCASE("another shape") {
    TrainedState wide(9);
    const auto text = error_of(ExitCode::kBadInput,
                               [&] { ds::load_checkpoint(folder, identity(), wide.optimizer()); });
    CHECK(has(text, "exp_avg.model.layers.0.q_a_proj.lora_A.weight"));
    CHECK(has(text, "[2, 8], needed is F32 [2, 9]"));
  }
  SUBCASE("another number") {
    std::vector<ds::Parameter*> fewer(state.parameters().begin(), state.parameters().end() - 1);
    ds::Optimizer optimizer(ds::OptimizerConfig{}, fewer);
    const auto text =
        error_of(ExitCode::kBadInput, [&] { ds::load_checkpoint(folder, identity(), optimizer); });
    CHECK(has(text, "state of 4 parameters, this run trains 3"));
  }
  SUBCASE("another name") {
    TrainedState other;
    other.storage()[1].name = "model.norm.weight";
    const auto text = error_of(ExitCode::kBadInput,
                               [&] { ds::load_checkpoint(folder, identity(), other.optimizer()); });
    CHECK(has(text, "exp_avg.model.norm.weight"));
  }
}

// Writes `document` as a state with a right digest.
void forge(const fs::path& folder, nlohmann::json document) {
  document.erase("digest");
  document["digest"] = ds::sha256(document.dump());
  overwrite(folder / "state.json", document.dump());
}

TEST_CASE("a forged state is refused") {
  TempFolder output;
  TrainedState state;
  const auto folder = save(output.path, state, 4);
  auto document = nlohmann::json::parse(file_bytes(folder / "state.json"));
  CHECK(document.at("schema") == "deepseek/checkpoint-state/1");
  SUBCASE("files outside the folder") {
    for (const char* name : {"../x", "/etc/hostname", "a/../../x", ".."}) {
      auto copy = document;
      copy["files"][name] = {{"bytes", 1}, {"sha256", ""}};
      forge(folder, copy);
      CHECK(has(refusal(folder, identity()), "no file inside the checkpoint"));
    }
  }
  SUBCASE("another schema") {
    document["schema"] = "deepseek/checkpoint-state/2";
    forge(folder, document);
    CHECK(has(refusal(folder, identity()), "deepseek/checkpoint-state/2"));
  }
  SUBCASE("no optimizer file") {
    document["files"].erase("optimizer.safetensors");
    forge(folder, document);
    CHECK(has(refusal(folder, identity()), "does not list optimizer.safetensors"));
  }
  SUBCASE("negative position") {
    document["position"]["row"] = -1;
    forge(folder, document);
    CHECK(has(refusal(folder, identity()), "'row' is -1"));
  }
  SUBCASE("fewer updates than a parameter had") {
    document["position"]["step"] = 3;
    forge(folder, document);
    CHECK(has(refusal(folder, identity()), "had 4 updates, but the run had 3"));
  }
  SUBCASE("wrong types") {
    for (const char* key : {"position", "files", "settings", "model_digest"}) {
      auto copy = document;
      copy[key] = 7;
      forge(folder, copy);
      CHECK(has(refusal(folder, identity()), key));
    }
  }
  SUBCASE("no object") {
    overwrite(folder / "state.json", "[]");
    CHECK(has(refusal(folder, identity()), "no JSON object"));
  }
}

TEST_CASE("latest is the newest whole checkpoint") {
  TempFolder output;
  TrainedState state;
  std::vector<std::string> skipped;
  CHECK(ds::find_latest_checkpoint(output.path / "none", skipped).empty());
  CHECK(ds::find_latest_checkpoint(output.path, skipped).empty());
  for (const std::int64_t step : {2, 9, 10}) save(output.path, state, step);
  fs::create_directory(output.path / "checkpoint-best");
  fs::create_directory(output.path / "checkpoint-011");
  overwrite(output.path / "checkpoint-12", "a file");
  CHECK(ds::find_latest_checkpoint(output.path, skipped) == output.path / "checkpoint-10");
  CHECK(skipped.empty());
  // Same size, other content.
  auto bytes = file_bytes(output.path / "checkpoint-10" / "optimizer.safetensors");
  bytes.back() = static_cast<char>(bytes.back() ^ 0x10);
  overwrite(output.path / "checkpoint-10" / "optimizer.safetensors", bytes);
  fs::create_directory(output.path / "checkpoint-20");
  CHECK(ds::find_latest_checkpoint(output.path, skipped) == output.path / "checkpoint-9");
  REQUIRE(skipped.size() == 2);
  CHECK(has(skipped[0], "checkpoint-20: "));
  CHECK(has(skipped[0], "state.json is missing"));
  CHECK(has(skipped[1], "checkpoint-10: "));
  CHECK(has(skipped[1], "optimizer.safetensors: was changed"));
}

TEST_CASE("only the newest checkpoints are kept") {
  TempFolder output;
  TrainedState state;
  for (const std::int64_t step : {1, 2, 3}) save(output.path, state, step);
  CHECK(names(output.path).size() == 3);
  save(output.path, state, 10, 2);
  CHECK(names(output.path) == std::vector<std::string>{"checkpoint-10", "checkpoint-3"});
  SUBCASE("what is not whole neither counts nor goes") {
    fs::remove(output.path / "checkpoint-3" / "state.json");
    save(output.path, state, 11, 2);
    CHECK(names(output.path) ==
          std::vector<std::string>{"checkpoint-10", "checkpoint-11", "checkpoint-3"});
  }
  SUBCASE("the one just written stays, newer ones of an earlier run or not") {
    save(output.path, state, 4, 1);
    CHECK(names(output.path) == std::vector<std::string>{"checkpoint-4"});
  }
  SUBCASE("a failed save deletes nothing") {
    CHECK_THROWS_AS(ds::save_checkpoint(
                        output.path, position(12), identity(), state.optimizer(),
                        [](const fs::path& folder) {
                          ds::write_file(folder / "half", "x");
                          throw ds::Error(ExitCode::kFindings, "diverged");
                        },
                        1),
                    ds::Error);
    CHECK(names(output.path) == std::vector<std::string>{"checkpoint-10", "checkpoint-3"});
  }
}

TEST_CASE("a checkpoint of the same step is replaced") {
  TempFolder output;
  TrainedState state;
  save(output.path, state, 4);
  state.set(4);
  state.optimizer().states()[0].exp_avg.as<float>()[0] = 77.0f;
  ds::save_checkpoint(output.path, position(4), identity(), state.optimizer(), state.writer(), 0);
  CHECK(names(output.path) == std::vector<std::string>{"checkpoint-4"});
  TrainedState loaded;
  ds::load_checkpoint(output.path / "checkpoint-4", identity(), loaded.optimizer());
  CHECK(loaded.optimizer().states()[0].exp_avg.as<float>()[0] == 77.0f);
}

TEST_CASE("replacing works on a file system without exchange") {
  TempFolder output;
  for (const bool can_exchange : {true, false}) {
    for (const char* text : {"first", "second"}) {
      ds::CheckpointWriter writer(output.path, 4, can_exchange);
      overwrite(writer.folder() / "file", text);
      CHECK(writer.commit() == output.path / "checkpoint-4");
      CHECK(names(output.path) == std::vector<std::string>{"checkpoint-4"});
      CHECK(file_bytes(output.path / "checkpoint-4" / "file") == text);
    }
  }
  { const ds::CheckpointWriter abandoned(output.path, 4); }
  CHECK(names(output.path) == std::vector<std::string>{"checkpoint-4"});
}

TEST_CASE("a checkpoint may hold folders but no links") {
  TempFolder output;
  TrainedState state;
  state.set(1);
  const auto folder = ds::save_checkpoint(
      output.path, position(1), identity(), state.optimizer(),
      [](const fs::path& to) {
        fs::create_directories(to / "a" / "b");
        ds::write_file(to / "a" / "b" / "weights", "abc");
      },
      0);
  CHECK(ds::list_files(folder) ==
        std::vector<std::string>{"a/b/weights", "optimizer.safetensors", "state.json"});
  overwrite(folder / "a" / "b" / "weights", "abd");
  CHECK(has(refusal(folder, identity()), "a/b/weights: was changed"));
  const auto text = error_of(ExitCode::kIo, [&] {
    ds::save_checkpoint(
        output.path, position(2), identity(), state.optimizer(),
        [](const fs::path& to) { fs::create_symlink("/etc", to / "link"); }, 0);
  });
  CHECK(has(text, "link: is no regular file"));
  CHECK(names(output.path) == std::vector<std::string>{"checkpoint-1"});
}

TEST_CASE("moments that are not finite are never saved") {
  TempFolder output;
  TrainedState state;
  state.set(4);
  state.optimizer().states()[1].exp_avg_sq.as<float>()[3] = std::numeric_limits<float>::infinity();
  const auto text = error_of(ExitCode::kFindings, [&] {
    ds::save_checkpoint(output.path, position(4), identity(), state.optimizer(), state.writer(), 0);
  });
  CHECK(has(text, "exp_avg_sq.model.layers.1.q_a_proj.lora_A.weight"));
  CHECK(names(output.path).empty());
}

TEST_CASE("left-overs of killed runs are removed") {
  TempFolder output;
  TrainedState state;
  save(output.path, state, 4);
  CHECK(ds::remove_stale_checkpoints(output.path / "none").empty());
  const std::string dead = "999999999";  // above the largest process number
  fs::create_directory(output.path / (".checkpoint-5.tmp-" + dead));
  overwrite(output.path / (".checkpoint-5.tmp-" + dead) / "half", "x");
  fs::create_directory(output.path / (".checkpoint-3.del-" + dead));
  fs::create_directory(output.path / (".checkpoint-4.old-" + dead));
  fs::create_directory(output.path / ".checkpoint-6.tmp-1");  // process 1 lives
  const std::string own = ".checkpoint-7.tmp-" + std::to_string(::getpid());
  fs::create_directory(output.path / own);
  fs::create_directory(output.path / ".checkpoint-x.tmp-1");
  fs::create_directory(output.path / ".hidden");
  // A checkpoint that was being replaced comes back.
  fs::copy(output.path / "checkpoint-4", output.path / (".checkpoint-2.old-" + dead),
           fs::copy_options::recursive);
  CHECK(ds::remove_stale_checkpoints(output.path).size() == 4);
  CHECK(names(output.path) == std::vector<std::string>{".checkpoint-6.tmp-1", ".checkpoint-x.tmp-1",
                                                       ".hidden", "checkpoint-2", "checkpoint-4"});
}

}  // namespace
