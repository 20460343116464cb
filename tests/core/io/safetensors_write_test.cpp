#include <doctest/doctest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <cstring>
#include <stdexcept>

#include "libcore/base/atomic_write.h"
#include "libcore/base/hash.h"
#include "libcore/io/safetensors.h"
#include "tests/core/io/io_fixtures.h"
#include "tests/support/paths.h"

namespace fs = std::filesystem;
using namespace ds;
using test::contains;

namespace {

const char kBytes[] =
    "\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f";  // 16 bytes and a zero

}  // namespace

TEST_CASE("safetensors writer: the reference's bytes, N = 312") {
  const fs::path dir = test::make_temp_dir("stw");
  write_safetensors(dir / "m.safetensors",
                    {{"s", DType::kF32, {}, "abcd"},
                     {"c", DType::kF8E4M3, {5}, "vwxyz"},
                     {"z", DType::kI64, {1}, kBytes},
                     {"b", DType::kBF16, {3}, "123456"},
                     {"a", DType::kF32, {2, 2}, kBytes}},
                    {{"format", "pt"}});
  const std::string bytes = read_file(dir / "m.safetensors");
  const std::string header =
      R"({"__metadata__":{"format":"pt"},"z":{"dtype":"I64","shape":[1],"data_offsets":[0,8]},)"
      R"("a":{"dtype":"F32","shape":[2,2],"data_offsets":[8,24]},)"
      R"("s":{"dtype":"F32","shape":[],"data_offsets":[24,28]},)"
      R"("b":{"dtype":"BF16","shape":[3],"data_offsets":[28,34]},)"
      R"("c":{"dtype":"F8_E4M3","shape":[5],"data_offsets":[34,39]}}  )";
  CHECK(header.size() == 312);
  CHECK(bytes == test::safetensors_bytes(
                     header, std::string(kBytes, 8) + std::string(kBytes, 16) + "abcd123456vwxyz"));
  // Digest of the file that Python's safetensors 0.8.0 writes for these tensors.
  CHECK(sha256(bytes) == "2974b61d5ad13890a8915f824555a330807646be5dd5295fe2949522773dfdbd");
  fs::remove_all(dir);
}

TEST_CASE("safetensors writer: escapes, order inside a dtype, empty tensors, as the reference") {
  const fs::path dir = test::make_temp_dir("stw");
  write_safetensors(dir / "m.safetensors",
                    {{"\xe4\xb8\xad\n\"\\\x01\x7f/\b\f\r\t", DType::kU8, {0, 3}, nullptr},
                     {"b", DType::kBool, {1}, "x"},
                     {"a10", DType::kI8, {2}, "yz"},
                     {"a9", DType::kI8, {1}, "w"},
                     {"B", DType::kU64, {1}, "12345678"},
                     {"f64", DType::kF64, {1}, "abcdefgh"}},
                    {{"k\t", "\xc3\xa9\x1f"}});
  const std::string bytes = read_file(dir / "m.safetensors");
  CHECK(bytes.size() == 420);
  CHECK(sha256(bytes) == "e9a5a50a0870a6cc81fd38eb963466c0939612bd402b781b78a50c5848b77f51");
  const auto file = SafetensorsFile::open(dir / "m.safetensors");
  CHECK(file.tensors().size() == 6);
  CHECK(file.find("\xe4\xb8\xad\n\"\\\x01\x7f/\b\f\r\t") != nullptr);
  CHECK(file.metadata().at("k\t") == "\xc3\xa9\x1f");
  write_safetensors(dir / "e.safetensors", {}, {});
  CHECK(read_file(dir / "e.safetensors") == test::safetensors_bytes("{}      "));
  CHECK(SafetensorsFile::open(dir / "e.safetensors").tensors().empty());
  // Several metadata keys: sorted.
  write_safetensors(dir / "s.safetensors", {}, {{"b", "2"}, {"a", "1"}});
  CHECK(contains(read_file(dir / "s.safetensors"), R"({"__metadata__":{"a":"1","b":"2"}})"));
  fs::remove_all(dir);
}

TEST_CASE("safetensors writer: what the shared golden files hold is written back byte for byte") {
  const fs::path shared = test::shared_dir();
  if (shared.empty()) {
    MESSAGE("skipped: the shared goldens are absent");
    return;
  }
  const fs::path dir = test::make_temp_dir("stw");
  int files = 0;
  int tensors = 0;
  for (const auto& item : fs::recursive_directory_iterator(shared / "goldens")) {
    if (item.path().extension() != ".safetensors") continue;
    const auto file = SafetensorsFile::open(item.path());
    if (file.metadata().size() > 1) continue;
    std::vector<TensorToWrite> all;
    for (const TensorInfo& tensor : file.tensors()) {
      all.push_back(
          {std::string(tensor.name), tensor.dtype, tensor.shape.copy(), file.data(tensor)});
      ++tensors;
    }
    write_safetensors(dir / "copy.safetensors", all, file.metadata());
    CAPTURE(item.path().string());
    CHECK(read_file(dir / "copy.safetensors") == read_file(item.path()));
    ++files;
  }
  MESSAGE(files << " golden files with " << tensors << " tensors written back");
  CHECK(files > 0);
  fs::remove_all(dir);
}

TEST_CASE("safetensors writer: tensors that make no file are refused before anything is written") {
  const fs::path dir = test::make_temp_dir("stw");
  const auto refused = [&](std::vector<TensorToWrite> tensors,
                           const std::map<std::string, std::string>& metadata = {}) {
    try {
      write_safetensors(dir / "m", std::move(tensors), metadata);
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kInternal);
      return std::string(error.what());
    }
    return std::string("no error");
  };
  CHECK(contains(refused({{"a", DType::kU8, {1}, "x"}, {"a", DType::kI8, {1}, "x"}}),
                 "two tensors are named \"a\""));
  CHECK(contains(refused({{"__metadata__", DType::kU8, {1}, "x"}}), "__metadata__"));
  CHECK(contains(refused({{"a", DType::kU8, {-1}, "x"}}), "impossible shape [-1]"));
  CHECK(contains(refused({{"a", DType::kF32, {INT64_MAX, 4}, "x"}}), "impossible shape"));
  CHECK(contains(refused({{"a", DType::kF4, {3}, "x"}}), "impossible shape"));
  CHECK(contains(refused({{"a", DType::kF32, {1}, nullptr}}), "has no data"));
  CHECK(contains(refused({{"\xff", DType::kU8, {1}, "x"}}), "not UTF-8"));
  CHECK(contains(refused({}, {{"a", "\xff"}}), "not UTF-8"));
  CHECK(fs::is_empty(dir));
  fs::remove_all(dir);
}

TEST_CASE("safetensors writer: over its own mapped input; at a size limit the old file stays") {
  const fs::path dir = test::make_temp_dir("stw");
  const std::string data(100000, 'd');
  const fs::path path = dir / "m.safetensors";
  write_safetensors(path, {{"a", DType::kU8, {100000}, data.data()}}, {});
  const std::string before = read_file(path);
  {
    const auto file = SafetensorsFile::open(path);
    const TensorInfo& a = *file.find("a");
    write_safetensors(path,
                      {{"a", a.dtype, a.shape.copy(), file.data(a)},
                       {"b", a.dtype, a.shape.copy(), file.data(a)}},
                      {});
    CHECK(std::memcmp(file.data(a), data.data(), data.size()) == 0);
  }
  const std::string after = read_file(path);
  CHECK(after.size() > before.size() + 99999);
  const pid_t child = fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{150000, 150000};
    setrlimit(RLIMIT_FSIZE, &limit);
    int code = 1;
    try {
      write_safetensors(
          path, {{"a", DType::kU8, {100000}, data.data()}, {"b", DType::kU8, {90000}, data.data()}},
          {});
    } catch (const Error& error) {
      code = error.code() == ExitCode::kIo ? 0 : 2;
    }
    _exit(code);
  }
  int status = 0;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(WEXITSTATUS(status) == 0);
  CHECK(read_file(path) == after);
  CHECK(std::distance(fs::directory_iterator(dir), fs::directory_iterator()) == 1);
  fs::remove_all(dir);
}
