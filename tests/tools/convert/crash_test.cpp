// deepseek-convert: killed, stopped, out of disk, started twice.
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>

#include "tests/tools/convert/fixture.h"

namespace ds::test {

namespace {

// A model of several shards that takes long enough to be interrupted.
class BigModel {
 public:
  BigModel() {
    auto tensors = std::map<std::string, Loaded>();
    const std::int64_t rows = 1024, cols = 4096;
    for (int i = 0; i < 8; ++i) {
      Loaded& tensor =
          tensors["model.layers.0.mlp.experts." + std::to_string(i) + ".up_proj.weight"];
      tensor = {
          DType::kBF16, {rows, cols}, std::string(static_cast<std::size_t>(rows * cols * 2), 0)};
      for (std::size_t at = 0; at < tensor.bytes.size(); at += 2) {
        tensor.bytes[at] = static_cast<char>(at * 31 + static_cast<std::size_t>(i));
        tensor.bytes[at + 1] = '\x3c';
      }
    }
    save_folder(temp / "model", tiny_config({}), tensors);
  }
  std::vector<std::string> arguments(const std::string& out,
                                     const std::vector<std::string>& more = {}) const {
    std::vector<std::string> all{"weights",          temp / "model", temp / out,  "--to", "f32",
                                 "--max_shard_size", "17MB",         "--threads", "1"};
    all.insert(all.end(), more.begin(), more.end());
    return all;
  }
  // Every file of the result, by name.
  std::map<std::string, std::string> result(const std::string& out) const {
    std::map<std::string, std::string> files;
    for (const auto& entry : fs::directory_iterator(temp / out)) {
      files[entry.path().filename().string()] = sha256_file(entry.path());
    }
    return files;
  }
  TempFolder temp;
};

}  // namespace

TEST_CASE("killed at any time and resumed: the same bytes") {
  const BigModel model;
  converted(model.arguments("whole"));
  const auto want = model.result("whole");
  CHECK(want.size() == 10);  // 8 shards, index, config
  int interrupted = 0, kept = 0;
  for (const int milliseconds : {5, 20, 40, 80, 120, 160}) {
    RunOptions options;
    options.signal_after_ms = milliseconds;
    options.signal = SIGKILL;
    const Outcome killed = convert(model.arguments("out"), options);
    if (killed.exit_code != 0) {
      ++interrupted;
      CHECK_FALSE(fs::exists(model.temp / "out"));
    }
    const Outcome resumed = convert(model.arguments("out", {"--resume", "--force"}));
    CHECK_MESSAGE(resumed.exit_code == 0, resumed.err);
    kept += has(resumed.err, "resumed: ") && !has(resumed.err, "resumed: 0 B") ? 1 : 0;
    CHECK(model.result("out") == want);
    CHECK_FALSE(fs::exists(model.temp / "out.partial"));
    fs::remove_all(model.temp / "out");
  }
  CHECK(interrupted > 0);
  CHECK(kept > 0);
}

TEST_CASE("SIGINT and SIGTERM: exit 130 with the finished shards kept, and the way on") {
  const BigModel model;
  for (const int signal : {SIGINT, SIGTERM}) {
    bool seen = false;
    for (int milliseconds = 30; milliseconds < 1000 && !seen; milliseconds += 25) {
      RunOptions options;
      options.signal_after_ms = milliseconds;
      options.signal = signal;
      const Outcome stopped = convert(model.arguments("out"), options);
      fs::remove_all(model.temp / "out");
      // Before the program's first steps a signal ends it as it ends any other.
      if (stopped.exit_code != 130 || stopped.err.empty()) continue;
      const bool partial = fs::exists(model.temp / "out.partial");
      CHECK(has(stopped.err, partial ? "--resume" : "nothing was left behind"));
      seen = partial;
    }
    CHECK(seen);
    // Other settings: what is there does not belong to them.
    std::vector<std::string> other = model.arguments("out", {"--resume"});
    other[4] = "f16";
    const Outcome anew = converted(other);
    CHECK(has(anew.err, "begun anew"));
    fs::remove_all(model.temp / "out");
  }
}

TEST_CASE("a disk that is full, or files that may not grow: exit 4 and nothing left") {
  const BigModel model;
  RunOptions options;
  options.in_child = [] {
    const rlimit limit{8 << 20, 8 << 20};
    setrlimit(RLIMIT_FSIZE, &limit);
  };
  const Outcome limited = convert(model.arguments("out"), options);
  CHECK(limited.exit_code == 4);
  CHECK_MESSAGE(has(limited.err, "model-00001-of-00008.safetensors"), limited.err);
  CHECK(model.temp.names() == std::vector<std::string>{"model"});

  const std::string disk = model.temp / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=40m") != 0) {
    MESSAGE("skipped: this user cannot mount a small disk");
    return;
  }
  // Known before anything is written ...
  const Outcome known = convert(model.arguments("disk/out"));
  CHECK(known.exit_code == 4);
  CHECK_MESSAGE(has(known.err, "are needed on its disk"), known.err);
  CHECK(fs::is_empty(disk));
  ::umount(disk.c_str());

  // ... or when it happens: the result just fits, but not beside the notes of the run.
  const nlohmann::json plan = nlohmann::json::parse(
      converted(model.arguments("disk/out", {"--dry_run", "--format", "json"})).out);
  const auto room = plan.at("bytes_to_write").get<std::uint64_t>() / 4096 * 4096 + 4096;
  const std::string size = "size=" + std::to_string(room);
  REQUIRE(::mount("tmpfs", disk.c_str(), "tmpfs", 0, size.c_str()) == 0);
  const Outcome full = convert(model.arguments("disk/out"));
  CHECK(full.exit_code == 4);
  CHECK_MESSAGE(has(full.err, "No space left"), full.err);
  CHECK_MESSAGE(has(full.err, "--resume goes on"), full.err);
  CHECK_FALSE(fs::exists(model.temp / "disk/out"));
  REQUIRE(::mount("tmpfs", disk.c_str(), "tmpfs", MS_REMOUNT, "size=400m") == 0);
  converted(model.arguments("disk/out", {"--resume"}));
  converted(model.arguments("whole"));
  CHECK(model.result("disk/out") == model.result("whole"));
  ::umount(disk.c_str());
}

TEST_CASE("a folder that may not be written") {
  const BigModel model;
  const std::string disk = model.temp / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", MS_RDONLY, "size=1m") != 0) {
    MESSAGE("skipped: this user cannot mount a read-only disk");
    return;
  }
  const Outcome outcome = convert(model.arguments("disk/out"));
  ::umount(disk.c_str());
  CHECK(outcome.exit_code == 4);
  CHECK_MESSAGE(has(outcome.err, "disk/out"), outcome.err);
}

TEST_CASE("two runs into one output: the second is refused while the first works") {
  const BigModel model;
  const std::string partial = model.temp / "out.partial";
  int refused = 0;
  for (int attempt = 0; attempt < 10 && refused == 0; ++attempt) {
    const pid_t child = ::fork();
    if (child == 0) {
      const Outcome first = convert(model.arguments("out"));
      ::_exit(first.exit_code);
    }
    while (!fs::exists(partial) && ::waitpid(child, nullptr, WNOHANG) == 0) ::usleep(500);
    const Outcome second = convert(model.arguments("out", {"--force"}));
    if (second.exit_code == 4) {
      ++refused;
      CHECK_MESSAGE(has(second.err, "another run is writing it"), second.err);
    }
    ::waitpid(child, nullptr, 0);
    CHECK(fs::exists(model.temp / "out"));
    fs::remove_all(model.temp / "out");
  }
  CHECK(refused > 0);
}

}  // namespace ds::test
