// A file made by several threads at once: on a disk, in memory, in memory that is full.
#include <fcntl.h>
#include <sys/mount.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "libcore/base/error.h"
#include "tests/tools/convert/fixture.h"
#include "tools/convert/file_maker.h"
#include "tools/convert/page_filler.h"

namespace ds::test {

namespace {

using convert::FileInWork;
using convert::OutputFile;
using convert::PageFiller;

constexpr std::size_t kBytes = 3'000'017;

std::string some_bytes(std::size_t size) {
  std::string bytes(size, 0);
  for (std::size_t i = 0; i < size; ++i) bytes[i] = static_cast<char>(i * 131 + i / 4099);
  return bytes;
}

OutputFile plan_of(const std::string& bytes) {
  OutputFile plan;
  plan.name = "file";
  plan.start = bytes.substr(0, 777);
  plan.bytes = bytes.size();
  return plan;
}

// All but the start, in pieces of `piece` bytes, by four threads that begin together.
void write_pieces(FileInWork& file, const std::string& bytes, std::size_t piece) {
  std::atomic<std::size_t> next{0}, waiting{4};
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([&] {
      --waiting;
      while (waiting > 0) {
      }
      while (true) {
        const std::size_t at = 777 + piece * next++;
        if (at >= bytes.size()) return;
        file.write(at, bytes.data() + at, std::min(piece, bytes.size() - at));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A folder in memory; empty where there is none.
fs::path memory_folder() {
  std::string pattern = "/dev/shm/ds-file-XXXXXX";
  if (mkdtemp(pattern.data()) == nullptr) return {};
  if (convert::lies_in_memory(pattern)) return pattern;
  fs::remove(pattern);
  return {};
}

void check_pieces(const fs::path& folder) {
  const std::string bytes = some_bytes(kBytes);
  for (const std::size_t piece : {100'003UL, 8'000UL, 4'096UL, 999UL}) {
    INFO("pieces of ", piece);
    FileInWork file(folder, plan_of(bytes));
    write_pieces(file, bytes, piece);
    CHECK_FALSE(fs::exists(folder / "file"));
    file.commit();
    CHECK(read_text(folder / "file") == bytes);
    fs::remove(folder / "file");
    CHECK(fs::is_empty(folder));
  }
}

}  // namespace

TEST_CASE("a file in work: pieces of any size from several threads, on a disk") {
  const TempFolder temp;
  check_pieces(temp.root());
}

TEST_CASE("a file in work: the same in memory") {
  const fs::path folder = memory_folder();
  if (folder.empty()) {
    MESSAGE("skipped: /dev/shm is no folder in memory");
    return;
  }
  check_pieces(folder);
  { const FileInWork dropped(folder, plan_of(some_bytes(kBytes))); }
  CHECK(fs::is_empty(folder));
  fs::remove(folder);
}

TEST_CASE("page filler: whole pages only, and what it did not do is said") {
  const fs::path folder = memory_folder();
  if (folder.empty()) {
    MESSAGE("skipped: /dev/shm is no folder in memory");
    return;
  }
  const auto page = static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const std::string bytes = some_bytes(5 * page + 10);
  const fs::path path = folder / "file";
  const int fd = ::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
  REQUIRE(fd >= 0);
  REQUIRE(::ftruncate(fd, static_cast<off_t>(bytes.size())) == 0);
  {
    PageFiller filler(fd, bytes.size());
    const auto filled = filler.fill(10, bytes.data() + 10, 3 * page);
    if (filled.begin == filled.end) {
      MESSAGE("skipped: this system does not allow userfaultfd");
    } else {
      CHECK(filled.begin == page);
      CHECK(filled.end == 3 * page);
      std::string want(bytes.size(), 0);
      want.replace(page, 2 * page, bytes, page, 2 * page);
      CHECK(read_text(path) == want);
      // Less than a page, and a page that is there already.
      const auto less = filler.fill(3 * page + 1, bytes.data(), page - 1);
      CHECK(less.begin == less.end);
      const auto there = filler.fill(page, bytes.data(), page);
      CHECK(there.begin == there.end);
      // Up to such a page.
      const auto before = filler.fill(0, bytes.data(), 2 * page);
      CHECK(before.begin == 0);
      CHECK(before.end == page);
      // The last page is not whole.
      const auto last = filler.fill(4 * page, bytes.data() + 4 * page, page + 10);
      CHECK(last.begin == 4 * page);
      CHECK(last.end == 5 * page);
      want.replace(0, page, bytes, 0, page);
      want.replace(4 * page, page, bytes, 4 * page, page);
      CHECK(read_text(path) == want);
    }
  }
  ::close(fd);
  fs::remove_all(folder);
}

TEST_CASE("a file in work: memory that is full is an error of the file, and nothing is left") {
  const TempFolder temp;
  const fs::path disk = temp / "disk";
  fs::create_directory(disk);
  if (::mount("tmpfs", disk.c_str(), "tmpfs", 0, "size=2m") != 0) {
    MESSAGE("skipped: this user cannot mount a small disk");
    return;
  }
  const std::string bytes = some_bytes(kBytes);
  {
    FileInWork file(disk, plan_of(bytes));
    std::atomic<int> refused{0};
    std::vector<std::thread> threads;
    for (std::size_t i = 0; i < 4; ++i) {
      threads.emplace_back([&, i] {
        const std::size_t piece = 50'000;
        try {
          for (std::size_t at = 777 + i * piece; at < bytes.size(); at += 4 * piece) {
            file.write(at, bytes.data() + at, std::min(piece, bytes.size() - at));
          }
        } catch (const Error& error) {
          CHECK(error.code() == ExitCode::kIo);
          CHECK_MESSAGE(has(error.what(), "disk/file: cannot be written: No space left"),
                        error.what());
          ++refused;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    CHECK(refused > 0);
  }
  CHECK(fs::is_empty(disk));
  ::umount(disk.c_str());
}

}  // namespace ds::test
