#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <fstream>
#include <stdexcept>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/base/stop.h"
#include "libcore/base/system.h"
#include "tests/support/paths.h"

namespace fs = std::filesystem;
using namespace ds;

namespace {

void put(const fs::path& path, const std::string& text) {
  fs::create_directories(path.parent_path());
  std::ofstream(path) << text;
}

constexpr std::uint64_t kGiB = std::uint64_t{1} << 30;

}  // namespace

TEST_CASE("system: this machine's figures are plausible") {
  const MemoryInfo memory = memory_info();
  CHECK(memory.total > 64u << 20);
  CHECK(memory.available > 0);
  CHECK(memory.available <= memory.total);
  CHECK(usable_cpus() >= 1);
  CHECK(usable_cpus() <= sysconf(_SC_NPROCESSORS_CONF));
  CHECK(resident_bytes() > 0);
  CHECK(peak_resident_bytes() >= resident_bytes() / 2);
  CHECK(free_disk_bytes(fs::temp_directory_path()) > 0);
  CHECK(free_disk_bytes(fs::temp_directory_path() / "not" / "yet" / "there") > 0);
  CHECK(free_disk_bytes("relative-name-that-is-absent") > 0);
  MESSAGE("memory " << memory.total << " available " << memory.available << " cpus "
                    << usable_cpus() << " peak " << peak_resident_bytes());
}

TEST_CASE("system: the peak follows what is touched") {
  if (!reset_peak_resident()) {
    MESSAGE("skipped: the peak cannot be reset here");
    return;
  }
  const std::uint64_t before = peak_resident_bytes();
  {
    std::vector<char> block(64 << 20, 1);
    CHECK(block[12345] == 1);
  }
  CHECK(peak_resident_bytes() >= before + (60u << 20));
}

TEST_CASE("system: control groups version 2") {
  const fs::path root = test::make_temp_dir("cgroup2");
  const SystemPaths paths{root / "proc", root / "cg"};
  put(paths.proc / "meminfo", "MemTotal: 16777216 kB\nMemFree: 1 kB\nMemAvailable: 8388608 kB\n");
  put(paths.proc / "self/cgroup", "0::/a/b\n");
  put(paths.cgroup / "cgroup.controllers", "cpu memory\n");
  CHECK(memory_info(paths).total == 16 * kGiB);
  CHECK(memory_info(paths).available == 8 * kGiB);
  put(paths.cgroup / "a/b/memory.max", "max\n");
  put(paths.cgroup / "a/b/cpu.max", "max 100000\n");
  put(paths.cgroup / "a/memory.max", "4294967296\n");
  put(paths.cgroup / "a/memory.current", "3221225472\n");
  put(paths.cgroup / "a/memory.stat", "anon 5\nactive_file 7\ninactive_file 1073741824\n");
  CHECK(memory_info(paths).total == 4 * kGiB);
  CHECK(memory_info(paths).available == 2 * kGiB);
  const int all = usable_cpus(paths);
  put(paths.cgroup / "a/cpu.max", "50000 100000\n");
  CHECK(usable_cpus(paths) == 1);
  put(paths.cgroup / "a/cpu.max", "150000 100000\n");
  CHECK(usable_cpus(paths) == std::min(all, 2));
  put(paths.cgroup / "a/cpu.max", "900000000 100000\n");
  CHECK(usable_cpus(paths) == all);
  fs::remove_all(root);
}

TEST_CASE("system: control groups version 1, seen from inside a container") {
  const fs::path root = test::make_temp_dir("cgroup1");
  const SystemPaths paths{root / "proc", root / "cg"};
  put(paths.proc / "meminfo", "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\n");
  // The path is the host's; the mount shows our group as the root.
  put(paths.proc / "self/cgroup", "4:memory:/docker/1234\n3:cpu,cpuacct:/docker/1234\n0::/\n");
  put(paths.cgroup / "memory/memory.limit_in_bytes", "2147483648\n");
  put(paths.cgroup / "memory/memory.usage_in_bytes", "1073741824\n");
  put(paths.cgroup / "memory/memory.stat", "inactive_file 1\ntotal_inactive_file 536870912\n");
  put(paths.cgroup / "cpu,cpuacct/cpu.cfs_quota_us", "100000\n");
  put(paths.cgroup / "cpu,cpuacct/cpu.cfs_period_us", "100000\n");
  CHECK(memory_info(paths).total == 2 * kGiB);
  CHECK(memory_info(paths).available == 2 * kGiB - kGiB / 2);
  CHECK(usable_cpus(paths) == 1);
  put(paths.cgroup / "memory/memory.limit_in_bytes", "9223372036854771712\n");
  put(paths.cgroup / "cpu,cpuacct/cpu.cfs_quota_us", "-1\n");
  CHECK(memory_info(paths).total == 16 * kGiB);
  CHECK(usable_cpus(paths) == usable_cpus({root / "proc", root / "absent"}));
  fs::remove_all(root);
}

TEST_CASE("system: without /proc there is still an answer") {
  const SystemPaths nothing{"/nonexistent-proc", "/nonexistent-cgroup"};
  CHECK(memory_info(nothing).total > 0);
  CHECK(usable_cpus(nothing) >= 1);
}

TEST_CASE("stop: the flag, and the two signals") {
  clear_stop();
  CHECK_FALSE(stop_requested());
  request_stop();
  CHECK(stop_requested());
  clear_stop();
  for (const int number : {SIGINT, SIGTERM}) {
    const pid_t child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
      std::signal(SIGINT, SIG_DFL);
      std::signal(SIGTERM, SIG_DFL);
      install_stop_handlers();
      install_stop_handlers();
      raise(number);
      if (!stop_requested()) _exit(1);
      raise(number);
      _exit(2);  // the second signal must not come back
    }
    int status = 0;
    REQUIRE(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status));
    CHECK(WTERMSIG(status) == number);
  }
}

TEST_CASE("stop: an ignored signal stays ignored") {
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGINT, SIG_IGN);
    install_stop_handlers();
    raise(SIGINT);
    raise(SIGINT);
    _exit(stop_requested() ? 1 : 0);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WIFEXITED(status));
  CHECK(WEXITSTATUS(status) == 0);
}
