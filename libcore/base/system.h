// What this process may use of the machine.
#pragma once

#include <cstdint>
#include <filesystem>

namespace ds {

// Where to look; tests give folders of their own.
struct SystemPaths {
  std::filesystem::path proc = "/proc";
  std::filesystem::path cgroup = "/sys/fs/cgroup";
};

// Bytes of main memory: the machine's, cut down to the limits of the control groups (v2 or v1) this
// process is in and to RLIMIT_AS. `available` counts page cache that the kernel can drop.
struct MemoryInfo {
  std::uint64_t total = 0;
  std::uint64_t available = 0;
};
MemoryInfo memory_info(const SystemPaths& paths = {});

// CPUs this process can keep busy: its affinity mask cut down to the control groups' quota (rounded
// up), at least 1.
int usable_cpus(const SystemPaths& paths = {});

// Largest and present resident memory of this process in bytes; 0 when the system does not say.
std::uint64_t peak_resident_bytes();
std::uint64_t resident_bytes();
// Makes the peak start again at the present value. False where the system does not allow it.
bool reset_peak_resident();

// Bytes an ordinary user can still write on the disk that holds `path`, or holds its nearest
// existing parent. Throws Error(kIo).
std::uint64_t free_disk_bytes(const std::filesystem::path& path);

// Bytes a second of reading the beginning of a file past the kernel's cache (O_DIRECT), for at most
// some hundredths of a second; 0 where the file system does not allow it.
double disk_read_rate(const std::filesystem::path& path);

}  // namespace ds
