#include <Random123/philox.h>
#include <doctest/doctest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/base/hash.h"
#include "libcore/base/mapped_file.h"
#include "libcore/base/rng.h"
#include "tests/support/paths.h"

namespace fs = std::filesystem;
using namespace ds;

TEST_CASE("sha256: the published vectors, in one piece, in pieces and from a file") {
  CHECK(sha256("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  CHECK(sha256("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string million(1000000, 'a');
  const std::string digest = "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";
  CHECK(sha256(million) == digest);
  Sha256 hash;
  for (std::size_t i = 0; i < million.size(); i += 7) hash.update(million.substr(i, 7));
  CHECK(hash.finish() == digest);
  const fs::path dir = test::make_temp_dir("hash");
  const std::string large(3000001, 'b');
  write_file(dir / "f", large);
  CHECK(sha256_file(dir / "f") == sha256(large));
  CHECK_THROWS_AS(sha256_file(dir / "absent"), Error);
  fs::remove_all(dir);
}

TEST_CASE("mapped file: contents, empty file, errors, advice") {
  const fs::path dir = test::make_temp_dir("map");
  write_file(dir / "f", "hello");
  MappedFile file(dir / "f");
  REQUIRE(file.size() == 5);
  CHECK(std::string(reinterpret_cast<const char*>(file.data()), 5) == "hello");
  file.will_need(0, 5);
  file.dont_need(3, 1000000);
  file.dont_need(99, 1);
  MappedFile moved = std::move(file);
  CHECK(file.size() == 0);
  CHECK(file.data() == nullptr);
  CHECK(moved.size() == 5);
  moved = MappedFile();
  CHECK(moved.size() == 0);
  write_file(dir / "empty", "");
  CHECK(MappedFile(dir / "empty").size() == 0);
  CHECK_THROWS_AS(MappedFile(dir / "absent"), Error);
  CHECK_THROWS_AS(MappedFile{dir}, Error);
  REQUIRE(mkfifo((dir / "pipe").c_str(), 0600) == 0);
  CHECK_THROWS_AS(MappedFile(dir / "pipe"), Error);  // and does not wait for a writer
  fs::remove_all(dir);
}

TEST_CASE("rng: Philox4x32-10's published vectors, by the documented mapping") {
  // Random123 kat_vectors: "philox4x32 10", counter, key, result.
  const Rng zero(0, 0);
  CHECK(zero.bits(0) == 0x6627e8d5u);
  CHECK(zero.bits(1) == 0xe169c58du);
  CHECK(zero.bits(2) == 0xbc57ac4cu);
  CHECK(zero.bits(3) == 0x9b00dbd8u);
  // counter 243f6a88 85a308d3 13198a2e 03707344, key a4093822 299f31d0: a block index that large is
  // out of reach of a 64-bit draw number, so through the header itself.
  const r123::Philox4x32::ctr_type counter = {{0x243f6a88u, 0x85a308d3u, 0x13198a2eu, 0x03707344u}};
  const r123::Philox4x32::key_type key = {{0xa4093822u, 0x299f31d0u}};
  const auto known = r123::Philox4x32{}(counter, key);
  CHECK(known.v[0] == 0xd16cfe09u);
  CHECK(known.v[1] == 0x94fdccebu);
  CHECK(known.v[2] == 0x5001e420u);
  CHECK(known.v[3] == 0x24126ea1u);
  // Key, stream and counter words are where the contract says.
  const std::uint64_t seed = 0x299f31d0a4093822u;
  const std::uint64_t stream = 0x0370734413198a2eu;
  const std::uint64_t index = 0x05a308d3243f6a88u;
  const r123::Philox4x32::ctr_type placed = {{0x243f6a88u, 0x05a308d3u, 0x13198a2eu, 0x03707344u}};
  const auto block = r123::Philox4x32{}(placed, key);
  const Rng rng(seed, stream);
  for (std::uint64_t word = 0; word < 4; ++word) CHECK(rng.bits(4 * index + word) == block.v[word]);
}

TEST_CASE("rng: uniform and normal numbers have the right range and moments") {
  const Rng rng(42, RngStream::kDropout);
  constexpr int kCount = 200000;
  double sum = 0;
  double normal_sum = 0;
  double normal_squares = 0;
  double normal_fourth = 0;
  for (int i = 0; i < kCount; ++i) {
    const float u = rng.uniform(static_cast<std::uint64_t>(i));
    CHECK_FALSE((u < 0.0f || u >= 1.0f));
    sum += u;
    const double z = rng.normal(static_cast<std::uint64_t>(i));
    normal_sum += z;
    normal_squares += z * z;
    normal_fourth += z * z * z * z;
  }
  // Five standard errors each.
  CHECK(std::fabs(sum / kCount - 0.5) < 5 * std::sqrt(1.0 / 12 / kCount));
  CHECK(std::fabs(normal_sum / kCount) < 5 / std::sqrt(kCount));
  CHECK(std::fabs(normal_squares / kCount - 1) < 5 * std::sqrt(2.0 / kCount));
  CHECK(std::fabs(normal_fourth / kCount - 3) < 5 * std::sqrt(96.0 / kCount));
  // The stated draws.
  const double u = (rng.bits(14) + 1.0) * 0x1p-32;
  const double v = rng.bits(15) * 0x1p-32;
  CHECK(rng.normal(7) ==
        static_cast<float>(std::sqrt(-2 * std::log(u)) * std::cos(2 * 3.14159265358979323846 * v)));
}

TEST_CASE("rng: permutations are permutations, repeatable, different by stream, uniform") {
  const Rng rng(1, RngStream::kShuffle);
  for (const std::int64_t n : {0, 1, 2, 3, 1000}) {
    auto order = rng.permutation(n);
    CHECK(order == rng.permutation(n));
    REQUIRE(order.size() == static_cast<std::size_t>(n));
    std::sort(order.begin(), order.end());
    for (std::int64_t i = 0; i < n; ++i) CHECK(order[static_cast<std::size_t>(i)] == i);
  }
  CHECK(rng.permutation(-5).empty());
  CHECK(Rng(1, 2).permutation(100) != Rng(1, 3).permutation(100));
  CHECK(Rng(1, 2).permutation(100) != Rng(2, 2).permutation(100));
  // Each of the 24 orders of four elements comes up about equally often.
  int counts[256] = {};
  constexpr int kRounds = 24000;
  for (int i = 0; i < kRounds; ++i) {
    const auto order = Rng(9, static_cast<std::uint64_t>(i)).permutation(4);
    ++counts[order[0] * 64 + order[1] * 16 + order[2] * 4 + order[3]];
  }
  int kinds = 0;
  double chi = 0;
  for (const int count : counts) {
    if (count == 0) continue;
    ++kinds;
    chi += (count - 1000.0) * (count - 1000.0) / 1000.0;
  }
  CHECK(kinds == 24);
  CHECK(chi < 60);  // 23 degrees of freedom: p = 4e-5
}

TEST_CASE("rng: numbers that stored runs depend on do not change") {
  CHECK(mix_stream(1, 2) != mix_stream(2, 1));
  CHECK(mix_stream(0, 0) != 0);
  CHECK(mix_stream(1, 2) == 834844254806117752u);
  // Both computed by an independent program.
  CHECK(Rng(7, 1).permutation(8) == std::vector<std::int64_t>{5, 0, 2, 1, 6, 4, 7, 3});
}
