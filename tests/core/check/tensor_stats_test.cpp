// Statistics of tensors, whole and in stretches.
#include "libcore/check/tensor_stats.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "libcore/base/rng.h"

using namespace ds;
using namespace ds::check;
using kernels::DType;

namespace {

template <class T>
std::span<const std::byte> bytes_of(const std::vector<T>& values) {
  return std::as_bytes(std::span<const T>(values));
}

}  // namespace

TEST_CASE("FP8: counts agree with a plain loop at every length and place") {
  const Rng rng(5, 0);
  for (std::size_t size = 1; size < 700; size += 13) {
    std::vector<std::uint8_t> codes(size);
    for (std::size_t i = 0; i < size; ++i)
      codes[i] = static_cast<std::uint8_t>(rng.bits(i * 7 + size));
    std::uint64_t bad = 0;
    std::uint64_t full = 0;
    std::uint64_t first = kNowhere;
    double squares = 0.0;
    for (std::size_t i = 0; i < size; ++i) {
      const unsigned code = codes[i] & 0x7fu;
      if (code == 0x7f) {
        ++bad;
        if (first == kNowhere) first = i;
        continue;
      }
      full += code == 0x7e ? 1 : 0;
      kernels::fp8_e4m3 value;
      value.bits = codes[i];
      const auto wide = static_cast<double>(static_cast<float>(value));
      squares += wide * wide;
    }
    const TensorStats stats = scan(DType::kF8E4M3, bytes_of(codes));
    CHECK(stats.bad == bad);
    CHECK(stats.saturated == full);
    CHECK(stats.first_bad == first);
    // Sums of at most 700 squares in float: each addition rounds by 2^-24 at most.
    CHECK(stats.squares == doctest::Approx(squares).epsilon(700 * 0x1p-24));
  }
}

TEST_CASE("every byte of a row counts, 255 NaN codes in one included") {
  std::vector<std::uint8_t> codes(128 * 3, 0x7f);
  CHECK(scan(DType::kF8E4M3, bytes_of(codes)).bad == codes.size());
  CHECK(scan(DType::kF8E4M3, bytes_of(codes)).largest_code == 0);
}

TEST_CASE("16 and 32-bit values: first bad one, magnitude, uniform, zero") {
  std::vector<float> values(3000, 0.5f);
  TensorStats stats = scan(DType::kF32, bytes_of(values));
  CHECK(stats.uniform);
  CHECK(!stats.zero);
  CHECK(stats.rms() == 0.5);
  values[2077] = NAN;
  values[2900] = -HUGE_VALF;
  stats = scan(DType::kF32, bytes_of(values));
  CHECK(stats.bad == 2);
  CHECK(stats.first_bad == 2077);
  CHECK(!stats.uniform);
  CHECK(stats.largest == 0.5);
  std::vector<std::uint16_t> halves(100, 0);
  CHECK(scan(DType::kBF16, bytes_of(halves)).zero);
  halves[3] = 0x7f80;
  CHECK(scan(DType::kBF16, bytes_of(halves)).first_bad == 3);
  CHECK(scan(DType::kF16, bytes_of(halves)).first_bad == 3);
  halves[3] = 0x7bff;
  CHECK(scan(DType::kF16, bytes_of(halves)).bad == 0);
  CHECK(scan(DType::kF16, bytes_of(halves)).largest == 65504.0);
}

TEST_CASE("scales: signs and mantissas") {
  const std::vector<float> values{1.0f, 0.5f, 0.75f, 0.0f, -1.0f, NAN, 3.0f};
  TensorStats stats = scan(DType::kF32, bytes_of(values));
  scan_scales(bytes_of(values), stats);
  CHECK(stats.not_positive == 2);
  CHECK(stats.first_not_positive == 3);
  CHECK(stats.mantissa == 2);
  CHECK(stats.first_mantissa == 2);
  CHECK(stats.smallest == 0.5);
  CHECK(stats.largest == 3.0);
  CHECK(stats.bad == 1);
}

TEST_CASE("stretches together are the whole") {
  std::vector<float> values(4 * 16384);  // four times the distance of samples
  const Rng rng(9, 0);
  for (std::size_t i = 0; i < values.size(); ++i) values[i] = rng.normal(i);
  values[40000] = NAN;
  const auto whole = scan(DType::kF32, bytes_of(values));
  TensorStats parts;
  for (std::size_t begin = 0; begin < values.size(); begin += 16384) {
    append(parts, scan(DType::kF32, bytes_of(values).subspan(4 * begin, 4 * 16384)));
  }
  CHECK(parts.elements == whole.elements);
  CHECK(parts.bad == whole.bad);
  CHECK(parts.first_bad == whole.first_bad);
  CHECK(parts.largest == whole.largest);
  CHECK(parts.sampled == whole.sampled);
  // The same samples in another order of addition, in double.
  CHECK(parts.rms() == doctest::Approx(whole.rms()).epsilon(1e-12));
  CHECK(!parts.uniform);
  // Two stretches that are uniform each, with other values.
  std::vector<float> steps(200, 1.0f);
  std::fill(steps.begin() + 100, steps.end(), 2.0f);
  TensorStats two = scan(DType::kF32, bytes_of(steps).first(400));
  append(two, scan(DType::kF32, bytes_of(steps).subspan(400)));
  CHECK(!two.uniform);
}
