// Checkpoints against kill -9 and full disks.
#include <signal.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <random>
#include <thread>

#include "tests/core/train/checkpoint_fixture.h"

namespace {

using namespace ds::test;
using ds::ExitCode;

// Saves steps from `first` on for ever, each twice (the second replaces), telling each step that is
// on disk through `fd`.
[[noreturn]] void save_for_ever(const fs::path& output, std::int64_t first, int fd) {
  try {
    TrainedState state(2000);
    for (std::int64_t step = first;; ++step) {
      save(output, state, step, 2);
      if (write(fd, &step, sizeof step) != sizeof step) _exit(3);
      save(output, state, step, 2);
    }
  } catch (...) {
    _exit(4);
  }
}

TEST_CASE("a kill at any moment leaves a whole newest checkpoint") {
  TempFolder output;
  std::mt19937 random(7);
  // Kills fall evenly over about three saves, however fast this disk is.
  std::chrono::nanoseconds one_save;
  {
    TempFolder trial;
    TrainedState state(2000);
    const auto start = std::chrono::steady_clock::now();
    for (const std::int64_t step : {1, 1, 2, 3}) save(trial.path, state, step, 2);
    one_save = (std::chrono::steady_clock::now() - start) / 4;
  }
  std::int64_t newest = 0;
  int left_over = 0;
  for (int round = 0; round < 100; ++round) {
    CAPTURE(round);
    int ends[2];
    REQUIRE(pipe(ends) == 0);
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      close(ends[0]);
      save_for_ever(output.path, newest + 1, ends[1]);
    }
    close(ends[1]);
    std::this_thread::sleep_for(one_save * static_cast<int>(random() % 3000) / 1000);
    REQUIRE(kill(child, SIGKILL) == 0);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    REQUIRE(WIFSIGNALED(status));
    std::int64_t told = newest;
    std::int64_t step = 0;
    while (read(ends[0], &step, sizeof step) == sizeof step) told = step;
    close(ends[0]);

    std::vector<std::string> skipped;
    const fs::path latest = ds::find_latest_checkpoint(output.path, skipped);
    CHECK(skipped.empty());
    if (!latest.empty()) {
      TrainedState loaded(2000);
      TrainedState wanted(2000);
      const auto where = ds::load_checkpoint(latest, identity(), loaded.optimizer());
      // Every step that was reported as saved is there, or a later one.
      CHECK(where.step >= told);
      CHECK(where.step <= told + 1);
      wanted.set(where.step);
      CHECK(loaded.state_bytes() == wanted.state_bytes());
      newest = where.step;
    } else {
      CHECK(told == 0);
    }
    left_over += static_cast<int>(ds::remove_stale_checkpoints(output.path).size());
    for (const std::string& name : names(output.path)) CHECK(name.starts_with("checkpoint-"));
    // How many are there is no promise here: every kill between a save and its deletions may leave
    // one more, until a save gets through them (the keep limit has a test of its own).
  }
  MESSAGE("one save takes " << one_save.count() / 1000 << " us; newest step " << newest
                            << ", temporary folders cleaned up: " << left_over);
  CHECK(newest > 0);
  CHECK(left_over > 0);
}

// Sets a limit on the size of written files for its life; the signal that goes with it is ignored.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    old_handler_ = signal(SIGXFSZ, SIG_IGN);
    REQUIRE(getrlimit(RLIMIT_FSIZE, &old_) == 0);
    const rlimit limit = {bytes, old_.rlim_max};
    REQUIRE(setrlimit(RLIMIT_FSIZE, &limit) == 0);
  }
  ~FileSizeLimit() {
    setrlimit(RLIMIT_FSIZE, &old_);
    signal(SIGXFSZ, old_handler_);
  }

 private:
  rlimit old_{};
  void (*old_handler_)(int) = nullptr;
};

TEST_CASE("a write that fails anywhere leaves the previous checkpoint alone") {
  TempFolder output;
  TrainedState state;
  const auto first = save(output.path, state, 1);
  const auto largest = fs::file_size(first / "optimizer.safetensors");
  const auto state_size = fs::file_size(first / "state.json");
  int failures = 0;
  for (const auto limit :
       {std::uintmax_t{0}, std::uintmax_t{1}, std::uintmax_t{100}, state_size - 1, largest - 1}) {
    CAPTURE(limit);
    std::string text;
    {
      const FileSizeLimit guard(limit);
      text = error_of(ExitCode::kIo, [&] { save(output.path, state, 2, 1); });
    }
    failures += text.empty() ? 0 : 1;
    CHECK(has(text, ".checkpoint-2.tmp-"));
    CHECK(names(output.path) == std::vector<std::string>{"checkpoint-1"});
    std::vector<std::string> skipped;
    CHECK(ds::find_latest_checkpoint(output.path, skipped) == first);
    CHECK(skipped.empty());
  }
  CHECK(failures == 5);
  save(output.path, state, 2, 1);
  CHECK(names(output.path) == std::vector<std::string>{"checkpoint-2"});
}

TEST_CASE("a full disk leaves the previous checkpoint alone") {
  TempFolder mount_point;
  if (mount("tmpfs", mount_point.path.c_str(), "tmpfs", 0, "size=128k") != 0) {
    MESSAGE("skipped: no right to mount a small disk");
    return;
  }
  {
    TrainedState state(1000);  // 72 KiB a checkpoint and more
    const auto first = save(mount_point.path, state, 1);
    const auto text = error_of(ExitCode::kIo, [&] { save(mount_point.path, state, 2, 1); });
    CHECK(has(text, "No space left on device"));
    CHECK(names(mount_point.path) == std::vector<std::string>{"checkpoint-1"});
    std::vector<std::string> skipped;
    CHECK(ds::find_latest_checkpoint(mount_point.path, skipped) == first);
  }
  umount(mount_point.path.c_str());
}

TEST_CASE("a folder that cannot be written is named") {
  TempFolder output;
  overwrite(output.path / "file", "x");
  TrainedState state;
  CHECK(has(error_of(ExitCode::kIo, [&] { save(output.path / "file" / "run", state, 1); }),
            (output.path / "file").string()));
}

}  // namespace
