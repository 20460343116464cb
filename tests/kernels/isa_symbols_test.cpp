// The ops are compiled once per instruction set. The linker keeps one copy of every weak symbol, so
// none that is compiled for AVX2 or AVX-512 may carry a name that other code uses too: the program
// would stop with an illegal instruction on a processor without it.
#include <doctest/doctest.h>

#include <array>
#include <cstdio>
#include <filesystem>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/paths.h"

namespace ds::test {
namespace {

std::string output_of(const std::string& command) {
  std::string text;
  FILE* pipe = popen(command.c_str(), "r");
  if (pipe == nullptr) return text;
  std::array<char, 4096> buffer{};
  std::size_t got = 0;
  while ((got = fread(buffer.data(), 1, buffer.size(), pipe)) > 0) text.append(buffer.data(), got);
  pclose(pipe);
  return text;
}

std::vector<std::filesystem::path> objects_of(const std::string& isa) {
  std::vector<std::filesystem::path> found;
  const auto folder = build_dir() / "kernels" / "CMakeFiles" / ("deepseek_kernels_" + isa + ".dir");
  if (!std::filesystem::exists(folder)) return found;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(folder)) {
    // Objects of sources that have gone stay behind in a build folder.
    const auto source = source_dir() / "kernels" / "cpu" / "ops" / entry.path().stem();
    if (entry.path().extension() == ".o" && std::filesystem::exists(source)) {
      found.push_back(entry.path());
    }
  }
  return found;
}

// Weak definitions in `nm -C` output whose name does not contain the instruction set's namespace.
std::vector<std::string> foreign_weak(const std::string& listing, const std::string& isa) {
  std::vector<std::string> foreign;
  std::istringstream lines(listing);
  std::string line;
  const std::string own = "ds::kernels::" + isa + "::";
  while (std::getline(lines, line)) {
    // "0000000000000000 W name": an address means that it is defined here.
    if (line.size() < 20 || line[0] == ' ') continue;
    // W is weak code; weak data (V, u: names of ops, cells of exception handling) has no
    // instructions.
    if (line[17] != 'W') continue;
    const std::string name = line.substr(19);
    if (name.find(own) == std::string::npos) foreign.push_back(name);
  }
  return foreign;
}

TEST_CASE("isa symbols: the search finds what it looks for") {
  const std::string listing =
      "0000000000000000 W std::vector<int>::size() const\n"
      "0000000000000000 W float ds::kernels::avx2::dot<float>(float const*)\n"
      "                 w __gmon_start__\n"
      "0000000000000010 T ds::kernels::avx2::run(ds::kernels::CpuContext&)\n"
      "0000000000000000 V DW.ref.__gxx_personality_v0\n";
  const auto foreign = foreign_weak(listing, "avx2");
  REQUIRE(foreign.size() == 1);
  CHECK(foreign[0] == "std::vector<int>::size() const");
}

TEST_CASE("isa symbols: no weak symbol outside the namespace of its instruction set") {
  if (output_of("nm --version 2>/dev/null").empty()) {
    MESSAGE("skipped: nm is not installed");
    return;
  }
  for (const std::string isa : {"avx2", "avx512"}) {
    const auto objects = objects_of(isa);
    if (objects.empty()) {
      MESSAGE("skipped: no objects of " << isa << " below " << build_dir().string());
      continue;
    }
    CHECK(objects.size() > 5);
    for (const auto& object : objects) {
      const std::string listing = output_of("nm -C '" + object.string() + "'");
      CHECK_MESSAGE(listing.find("ds::kernels::" + isa + "::") != std::string::npos,
                    object.filename().string() << " has nothing in its namespace");
      for (const std::string& name : foreign_weak(listing, isa)) {
        FAIL_CHECK(object.filename().string() << " (" << isa << ") defines " << name);
      }
    }
  }
}

}  // namespace
}  // namespace ds::test
