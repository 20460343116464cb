#include "libcore/base/atomic_write.h"

#include <doctest/doctest.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <functional>
#include <stdexcept>
#include <vector>

#include "libcore/base/error.h"
#include "tests/support/paths.h"

namespace fs = std::filesystem;
using namespace ds;

namespace {

std::vector<std::string> entries(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) {
    names.push_back(entry.path().filename().string());
  }
  return names;
}

ExitCode code_of(const std::function<void()>& action, std::string* message = nullptr) {
  try {
    action();
  } catch (const Error& error) {
    if (message != nullptr) *message = error.what();
    return error.code();
  }
  return ExitCode::kDone;
}

}  // namespace

TEST_CASE("atomic write: the target appears whole, and only on commit") {
  const fs::path dir = test::make_temp_dir("atomic");
  const fs::path target = dir / "file.txt";
  write_file(target, "old");
  {
    AtomicFile file(target);
    file.write("new ");
    file.write("text");
    CHECK(read_file(target) == "old");
    CHECK(entries(dir).size() == 2);
    for (const auto& name : entries(dir)) {
      CHECK((name == "file.txt" || name.starts_with(".file.txt.tmp-" + std::to_string(getpid()))));
    }
    file.commit();
  }
  CHECK(read_file(target) == "new text");
  CHECK(entries(dir) == std::vector<std::string>{"file.txt"});
  {
    AtomicFile file(target);
    file.write("never");
  }
  CHECK(read_file(target) == "new text");
  CHECK(entries(dir) == std::vector<std::string>{"file.txt"});
  fs::remove_all(dir);
}

TEST_CASE("atomic write: permissions follow the umask; long and non-ASCII names work") {
  const fs::path dir = test::make_temp_dir("atomic");
  const mode_t old = umask(027);
  write_file(dir / "a", "x");
  umask(old);
  struct stat info {};
  REQUIRE(stat((dir / "a").c_str(), &info) == 0);
  CHECK((info.st_mode & 0777) == 0640);
  const std::string longest(255, 'n');
  write_file(dir / longest, "long");
  CHECK(read_file(dir / longest) == "long");
  const std::string chinese = "\xe6\xa8\xa1\xe5\x9e\x8b.json";
  write_file(dir / chinese, "cn");
  CHECK(read_file(dir / chinese) == "cn");
  fs::remove_all(dir);
}

TEST_CASE("atomic write: failures are I/O errors that name the target") {
  const fs::path dir = test::make_temp_dir("atomic");
  std::string message;
  CHECK(code_of([&] { AtomicFile file(dir / "no" / "file"); }, &message) == ExitCode::kIo);
  CHECK(message.find("no/file") != std::string::npos);
  CHECK(message.find("No such file") != std::string::npos);
  fs::create_directory(dir / "folder");
  CHECK(code_of([&] { AtomicFile file(dir / "folder"); }) == ExitCode::kIo);
  CHECK(code_of([&] { AtomicFile file(dir / std::string(300, 'x')); }) == ExitCode::kIo);
  CHECK(code_of([&] { AtomicFile file(dir / ".."); }) == ExitCode::kIo);
  CHECK(code_of([&] { read_file(dir / "absent"); }, &message) == ExitCode::kIo);
  CHECK(message.find("absent") != std::string::npos);
  CHECK(code_of([&] { read_file(dir); }) == ExitCode::kIo);
  CHECK(code_of([&] { sync_folder(dir / "absent"); }) == ExitCode::kIo);
  // The folder disappears between writing and renaming.
  fs::create_directory(dir / "gone");
  AtomicFile file(dir / "gone" / "file");
  file.write("x");
  fs::remove_all(dir / "gone");
  CHECK(code_of([&] { file.commit(); }) == ExitCode::kIo);
  CHECK(code_of([&] { file.commit(); }) == ExitCode::kIo);
  CHECK(code_of([&] { file.write("y"); }) == ExitCode::kIo);
  CHECK(entries(dir) == std::vector<std::string>{"folder"});
  fs::remove_all(dir);
}

TEST_CASE("atomic write: at the file size limit the target stays as it was") {
  const fs::path dir = test::make_temp_dir("atomic");
  const fs::path target = dir / "file";
  write_file(target, "old");
  // In a child, so that the limit and the ignored signal end with it.
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{1 << 20, 1 << 20};
    setrlimit(RLIMIT_FSIZE, &limit);
    const std::string megabyte(1 << 20, 'm');
    const auto write_two = [&] {
      AtomicFile file(target);
      file.write(megabyte);
      file.write("one more");
      file.commit();
    };
    const auto reserve = [&] {
      AtomicFile file(target);
      file.reserve((1 << 20) + 1);
    };
    std::string message;
    const bool fine = code_of(write_two, &message) == ExitCode::kIo &&
                      message.find("File too large") != std::string::npos &&
                      code_of(reserve) == ExitCode::kIo;
    _exit(fine ? 0 : 1);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(read_file(target) == "old");
  CHECK(entries(dir) == std::vector<std::string>{"file"});
  fs::remove_all(dir);
}

TEST_CASE("atomic write: a full disk leaves the target as it was") {
  const fs::path dir = test::make_temp_dir("tmpfs");
  if (mount("tmpfs", dir.c_str(), "tmpfs", 0, "size=1m") != 0) {
    MESSAGE("skipped: mounting a small tmpfs is not permitted");
    fs::remove_all(dir);
    return;
  }
  const fs::path target = dir / "file";
  write_file(target, "old");
  const std::string half(600 << 10, 'h');
  std::string message;
  CHECK(code_of(
            [&] {
              AtomicFile file(target);
              file.write(half);
              file.write(half);
              file.commit();
            },
            &message) == ExitCode::kIo);
  CHECK(message.find("No space left") != std::string::npos);
  CHECK(code_of([&] {
          AtomicFile file(target);
          file.reserve(2 << 20);
        }) == ExitCode::kIo);
  CHECK(read_file(target) == "old");
  CHECK(entries(dir) == std::vector<std::string>{"file"});
  CHECK(umount(dir.c_str()) == 0);
  fs::remove_all(dir);
}

TEST_CASE("atomic write: killed in the middle, the target stays as it was") {
  const fs::path dir = test::make_temp_dir("atomic");
  const fs::path target = dir / "file";
  write_file(target, "old");
  for (int round = 0; round < 5; ++round) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      AtomicFile file(target);
      const std::string block(1 << 16, 'k');
      for (int i = 0; i < 1024; ++i) file.write(block);
      for (;;) pause();
    }
    usleep(2000 + 3000 * static_cast<useconds_t>(round));
    kill(child, SIGKILL);
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(read_file(target) == "old");
  }
  fs::remove_all(dir);
}

TEST_CASE("atomic write: two writers of one target do not disturb each other") {
  const fs::path dir = test::make_temp_dir("atomic");
  AtomicFile a(dir / "file");
  AtomicFile b(dir / "file");
  a.write("from a");
  b.write("from b");
  a.commit();
  CHECK(read_file(dir / "file") == "from a");
  b.commit();
  CHECK(read_file(dir / "file") == "from b");
  CHECK(entries(dir).size() == 1);
  fs::remove_all(dir);
}
