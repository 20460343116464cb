#include "libcore/base/system.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sched.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/base/error.h"

namespace ds {
namespace {

namespace fs = std::filesystem;

std::optional<std::string> slurp(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return std::nullopt;
  return std::string(std::istreambuf_iterator<char>(in), {});
}

std::optional<std::int64_t> leading_number(std::string_view text) {
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  std::int64_t value = 0;
  const auto result = std::from_chars(text.data(), text.data() + text.size(), value);
  if (result.ec != std::errc()) return std::nullopt;
  return value;
}

std::optional<std::int64_t> number_in(const fs::path& path) {
  const auto text = slurp(path);
  return text ? leading_number(*text) : std::nullopt;
}

// The number after `key` at the beginning of a line ("MemTotal:   123 kB").
std::optional<std::int64_t> field(std::string_view text, std::string_view key) {
  for (std::size_t at = 0; at < text.size();) {
    const std::size_t end = std::min(text.find('\n', at), text.size());
    const std::string_view line = text.substr(at, end - at);
    if (line.starts_with(key)) return leading_number(line.substr(key.size()));
    at = end + 1;
  }
  return std::nullopt;
}

std::optional<std::int64_t> status_bytes(const fs::path& file, std::string_view key) {
  const auto text = slurp(file);
  if (!text) return std::nullopt;
  const auto kib = field(*text, key);
  return kib ? std::optional<std::int64_t>(*kib * 1024) : std::nullopt;
}

// The folders of one controller's group and its parents, innermost first. `controller` is empty for
// version 2.
std::vector<fs::path> group_folders(const SystemPaths& paths, std::string_view controller) {
  const auto text = slurp(paths.proc / "self" / "cgroup");
  if (!text) return {};
  for (std::size_t at = 0; at < text->size();) {
    const std::size_t end = std::min(text->find('\n', at), text->size());
    const std::string line = text->substr(at, end - at);
    at = end + 1;
    const std::size_t first = line.find(':');
    const std::size_t second = first == std::string::npos ? first : line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const bool match =
        controller.empty()
            ? controllers.empty()
            : fmt::format(",{},", controllers).find(fmt::format(",{},", controller)) !=
                  std::string::npos;
    if (!match) continue;
    fs::path root = paths.cgroup;
    std::error_code ignored;
    if (!controller.empty()) {
      root = paths.cgroup / controller;
      if (!fs::exists(root, ignored)) root = paths.cgroup / controllers;
    } else if (!fs::exists(root / "cgroup.controllers", ignored)) {
      root = paths.cgroup / "unified";  // hybrid layout
    }
    fs::path inner = fs::path(line.substr(second + 1)).relative_path();
    // In a container the file can name the host's path while the mount shows ours as the root.
    if (!fs::exists(root / inner, ignored)) inner.clear();
    std::vector<fs::path> folders;
    for (; !inner.empty() && inner != "."; inner = inner.parent_path()) {
      folders.push_back(root / inner);
    }
    folders.push_back(root);
    return folders;
  }
  return {};
}

struct GroupFiles {
  const char* controller;
  const char* limit;
  const char* usage;
  const char* inactive;
};
constexpr GroupFiles kMemoryGroups[] = {
    {"", "memory.max", "memory.current", "inactive_file "},
    {"memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file "},
};

}  // namespace

MemoryInfo memory_info(const SystemPaths& paths) {
  std::int64_t total = 0;
  std::int64_t available = 0;
  if (const auto text = slurp(paths.proc / "meminfo")) {
    total = field(*text, "MemTotal:").value_or(0) * 1024;
    available = field(*text, "MemAvailable:").value_or(field(*text, "MemFree:").value_or(0)) * 1024;
  }
  if (total == 0) {
    total = static_cast<std::int64_t>(::sysconf(_SC_PHYS_PAGES)) * ::sysconf(_SC_PAGESIZE);
    available = total;
  }
  for (const GroupFiles& names : kMemoryGroups) {
    for (const fs::path& folder : group_folders(paths, names.controller)) {
      const auto limit = number_in(folder / names.limit);  // "max" is no number: no limit
      if (!limit || *limit >= total) continue;
      const std::int64_t used = number_in(folder / names.usage).value_or(0);
      const auto stat = slurp(folder / "memory.stat");
      const std::int64_t cache = stat ? field(*stat, names.inactive).value_or(0) : 0;
      total = *limit;
      available = std::min(available, *limit - std::max<std::int64_t>(0, used - cache));
    }
  }
  rlimit space{};
  if (::getrlimit(RLIMIT_AS, &space) == 0 && space.rlim_cur != RLIM_INFINITY &&
      space.rlim_cur < static_cast<rlim_t>(total)) {
    total = static_cast<std::int64_t>(space.rlim_cur);
    const std::int64_t pages = number_in(paths.proc / "self" / "statm").value_or(0);
    available = std::min(available, total - pages * ::sysconf(_SC_PAGESIZE));
  }
  available = std::clamp<std::int64_t>(available, 0, total);
  return {static_cast<std::uint64_t>(total), static_cast<std::uint64_t>(available)};
}

int usable_cpus(const SystemPaths& paths) {
  int cpus = 0;
  // The mask's size is not known beforehand on machines with more than 1024 CPUs.
  for (int size = 1024; size <= (1 << 20) && cpus == 0; size *= 4) {
    cpu_set_t* set = CPU_ALLOC(static_cast<std::size_t>(size));
    if (set == nullptr) break;
    const std::size_t bytes = CPU_ALLOC_SIZE(static_cast<std::size_t>(size));
    const bool known = ::sched_getaffinity(0, bytes, set) == 0;
    const int code = errno;
    if (known) cpus = CPU_COUNT_S(bytes, set);
    CPU_FREE(set);
    if (!known && code != EINVAL) break;
  }
  if (cpus <= 0) cpus = std::max(1, static_cast<int>(::sysconf(_SC_NPROCESSORS_ONLN)));
  const auto apply = [&cpus](std::int64_t quota, std::int64_t period) {
    if (quota > 0 && period > 0) {
      cpus = static_cast<int>(std::min<std::int64_t>(cpus, (quota + period - 1) / period));
    }
  };
  for (const fs::path& folder : group_folders(paths, "")) {
    const auto text = slurp(folder / "cpu.max");  // "max 100000" or "150000 100000"
    const auto quota = text ? leading_number(*text) : std::nullopt;
    if (!quota) continue;
    const std::size_t space = text->find(' ');
    apply(*quota, leading_number(std::string_view(*text).substr(std::min(space, text->size())))
                      .value_or(100000));
  }
  for (const fs::path& folder : group_folders(paths, "cpu")) {
    apply(number_in(folder / "cpu.cfs_quota_us").value_or(-1),
          number_in(folder / "cpu.cfs_period_us").value_or(0));
  }
  return std::max(1, cpus);
}

std::uint64_t peak_resident_bytes() {
  // Not getrusage first: its value survives exec, so a small program started by a large one would
  // report the large one's peak.
  if (const auto peak = status_bytes("/proc/self/status", "VmHWM:")) {
    return static_cast<std::uint64_t>(*peak);
  }
  rusage usage{};
  if (::getrusage(RUSAGE_SELF, &usage) != 0) return 0;
  return static_cast<std::uint64_t>(usage.ru_maxrss) * 1024;
}

std::uint64_t resident_bytes() {
  return static_cast<std::uint64_t>(status_bytes("/proc/self/status", "VmRSS:").value_or(0));
}

bool reset_peak_resident() {
  std::ofstream out("/proc/self/clear_refs");
  out << "5" << std::flush;
  return out.good();
}

std::uint64_t free_disk_bytes(const fs::path& path) {
  fs::path at = path.empty() ? fs::path(".") : path;
  struct statvfs info {};
  while (::statvfs(at.c_str(), &info) != 0) {
    const int code = errno;
    if (code == EINTR) continue;
    fs::path parent = at.parent_path();
    if (parent.empty()) parent = ".";
    if ((code != ENOENT && code != ENOTDIR) || parent == at) {
      throw Error(ExitCode::kIo,
                  path.string() + ": cannot tell its disk's free space: " + std::strerror(code));
    }
    at = parent;
  }
  return static_cast<std::uint64_t>(info.f_bavail) * info.f_frsize;
}

double disk_read_rate(const fs::path& path) {
  constexpr std::size_t kPiece = std::size_t{4} << 20;
  constexpr double kSeconds = 0.015;
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_DIRECT);
  if (fd < 0) return 0.0;
  // O_DIRECT wants aligned memory.
  const std::unique_ptr<void, decltype(&std::free)> buffer(std::aligned_alloc(4096, kPiece),
                                                           &std::free);
  using Clock = std::chrono::steady_clock;
  const auto start = Clock::now();
  double seconds = 0.0;
  std::size_t total = 0;
  while (seconds < kSeconds) {
    const ssize_t got = ::pread(fd, buffer.get(), kPiece, static_cast<off_t>(total));
    if (got <= 0) break;
    total += static_cast<std::size_t>(got);
    seconds = std::chrono::duration<double>(Clock::now() - start).count();
  }
  ::close(fd);
  return seconds > 0.0 ? static_cast<double>(total) / seconds : 0.0;
}

}  // namespace ds
