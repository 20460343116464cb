#include "libcore/base/page_stream.h"

#include <doctest/doctest.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>

#include "libcore/base/mapped_file.h"
#include "tests/support/paths.h"

using namespace ds;
using namespace ds::test;
namespace fs = std::filesystem;

namespace {

constexpr std::size_t kMiB = std::size_t{1} << 20;
constexpr std::size_t kPart = 12 * kMiB;  // more than one piece of the reader
constexpr std::size_t kParts = 4;

// Four parts one after another; the byte at any place tells its part.
struct Fixture {
  fs::path folder = make_temp_dir("page-stream");
  MappedFile file;

  Fixture() {
    const fs::path path = folder / "data";
    {
      std::ofstream out(path, std::ios::binary);
      for (std::size_t part = 0; part < kParts; ++part) {
        out << std::string(kPart, static_cast<char>('a' + part));
      }
    }
    file = MappedFile(path);
  }
  ~Fixture() { fs::remove_all(folder); }
  std::vector<std::vector<PageRange>> parts() const {
    std::vector<std::vector<PageRange>> all;
    for (std::size_t part = 0; part < kParts; ++part) {
      // Two ranges that touch, the later first.
      const std::byte* begin = file.data() + part * kPart;
      all.push_back({{begin + kPart / 2, kPart / 2}, {begin, kPart / 2}});
    }
    return all;
  }
  // Bytes of the mapping that this process has in its page tables. Advice may have split it.
  std::size_t mapped_resident() const {
    std::ifstream maps("/proc/self/smaps");
    const auto begin = reinterpret_cast<std::uintptr_t>(file.data());
    std::string line;
    bool inside = false;
    std::size_t resident = 0;
    while (std::getline(maps, line)) {
      unsigned long from = 0, to = 0, kib = 0;
      if (std::sscanf(line.c_str(), "%lx-%lx ", &from, &to) == 2) {
        inside = from < begin + file.size() && begin < to;
      } else if (inside && std::sscanf(line.c_str(), "Rss: %lu kB", &kib) == 1) {
        resident += kib * 1024;
      }
    }
    return resident;
  }
  void check_contents(std::size_t part) const {
    bool same = true;
    for (std::size_t at = 0; at < kPart; at += 4096) {
      same = same && file.data()[part * kPart + at] == static_cast<std::byte>('a' + part);
    }
    CHECK(same);
  }
};

}  // namespace

TEST_CASE("a part is in memory between enter and leave, and the window holds") {
  const Fixture f;
  PageStream stream(f.parts(), {}, kPart + 2 * kMiB);
  CHECK(stream.largest_part() == kPart);
  const std::vector<std::size_t> order{0, 1, 2, 3, 3, 2, 1, 0};
  {
    PageWalk walk(&stream, order);
    for (const std::size_t part : order) {
      walk.enter();
      CHECK(f.mapped_resident() >= kPart);
      f.check_contents(part);
      CHECK(f.mapped_resident() <= stream.window() + kMiB);  // faults map some pages around
      walk.leave();
    }
  }
  CHECK(f.mapped_resident() <= kMiB);
  CHECK(stream.peak_held_bytes() <= stream.window());
  CHECK(stream.peak_held_bytes() >= kPart);
  // The part at the turn stays: it is entered twice and read once.
  CHECK(stream.bytes_read() == 7 * kPart);
}

TEST_CASE("with room for two parts the next one is read while the first is in use") {
  const Fixture f;
  PageStream stream(f.parts(), {}, 2 * kPart);
  PageWalk walk(&stream, std::vector<std::size_t>{0, 1, 2, 3});
  walk.enter();
  while (stream.bytes_read() < 2 * kPart) std::this_thread::yield();
  CHECK(f.mapped_resident() >= 2 * kPart);
  walk.leave();
  walk.enter();
  f.check_contents(1);
  walk.leave();
}

TEST_CASE("a part larger than the window is read nevertheless") {
  const Fixture f;
  PageStream stream(f.parts(), {}, kMiB);
  PageWalk walk(&stream, std::vector<std::size_t>{2, 0});
  walk.enter();
  f.check_contents(2);
  walk.leave();
  walk.enter();
  f.check_contents(0);
  CHECK(f.mapped_resident() <= kPart + kMiB);
  walk.leave();
}

TEST_CASE("a walk may be cut short, begun anew, or never begun") {
  const Fixture f;
  PageStream stream(f.parts(), {}, 4 * kPart);
  for (int round = 0; round < 20; ++round) {
    PageWalk walk(&stream, std::vector<std::size_t>{0, 1, 2, 3, 2, 1, 0});
    walk.enter();
    f.check_contents(0);
    if (round % 2 == 0) walk.leave();
  }
  CHECK(f.mapped_resident() <= kMiB);
  PageWalk none(nullptr, std::vector<std::size_t>{0});
  none.enter();
  none.leave();
}

TEST_CASE("loose ranges are dropped with every walk") {
  const Fixture f;
  PageStream stream({}, {{f.file.data() + kPart, kPart}}, kMiB);
  f.check_contents(1);
  CHECK(f.mapped_resident() >= kPart);
  const PageWalk walk(&stream, {});
  CHECK(f.mapped_resident() <= kMiB);
}
