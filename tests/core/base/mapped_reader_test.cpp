#include "libcore/base/mapped_reader.h"

#include <doctest/doctest.h>

#include <string>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "tests/support/paths.h"

namespace fs = std::filesystem;
using namespace ds;

namespace {

std::string read(MappedReader& reader, const MappedFile& file, std::uint64_t offset,
                 std::size_t size) {
  std::string out(size, '?');
  reader.read(file, offset, size, out.data());
  return out;
}

}  // namespace

TEST_CASE("mapped reader: the mapped bytes, of several files in turn") {
  const fs::path dir = test::make_temp_dir("reader");
  std::string text;
  for (int i = 0; i < 100000; ++i) text += static_cast<char>(i * 7 + i / 251);
  write_file(dir / "a", text);
  write_file(dir / "b", "another file");
  const MappedFile a(dir / "a"), b(dir / "b");
  MappedReader reader;
  CHECK(read(reader, a, 0, text.size()) == text);
  CHECK(read(reader, b, 8, 4) == "file");
  CHECK(read(reader, a, 4097, 70001) == text.substr(4097, 70001));
  CHECK(read(reader, a, text.size(), 0).empty());
  MappedReader moved = std::move(reader);
  CHECK(read(moved, a, 99990, 10) == text.substr(99990));
  fs::remove_all(dir);
}

TEST_CASE("mapped reader: the file that was mapped, whatever has its name by now") {
  const fs::path dir = test::make_temp_dir("reader");
  write_file(dir / "a", "what was mapped");
  const MappedFile file(dir / "a");
  write_file(dir / "a", "something else!");
  MappedReader replaced;
  CHECK(read(replaced, file, 5, 10) == "was mapped");
  fs::remove(dir / "a");
  MappedReader removed;
  CHECK(read(removed, file, 0, 4) == "what");
  CHECK(read(replaced, file, 0, 4) == "what");
  fs::remove_all(dir);
}

TEST_CASE("mapped reader: a file that was cut off is an error that names it, not a signal") {
  const fs::path dir = test::make_temp_dir("reader");
  write_file(dir / "a", std::string(20000, 'a'));
  const MappedFile file(dir / "a");
  fs::resize_file(dir / "a", 5000);
  MappedReader reader;
  CHECK(read(reader, file, 4000, 1000) == std::string(1000, 'a'));
  std::string out(1000, '?');
  CHECK_THROWS_WITH_AS(reader.read(file, 4500, 1000, out.data()),
                       doctest::Contains("a: cannot be read at byte 5000: it ends there"), Error);
  fs::remove_all(dir);
}
