// Cast on the CPU: bit by bit against the conversions of kernels/types.h and exact arithmetic.
#include "kernels/cast.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "tests/support/buffers.h"
#include "tests/support/compare.h"

namespace ds::test {
namespace {

using kernels::bf16;
using kernels::Cast;
using kernels::CpuContext;
using kernels::f16;
using kernels::fp8_e4m3;
using kernels::Isa;

constexpr DType kF32 = DType::kF32, kBF16 = DType::kBF16, kF16 = DType::kF16, kF64 = DType::kF64,
                kF8 = DType::kF8E4M3;
constexpr DType kAll[] = {kF32, kF64, kBF16, kF16, kF8};

std::vector<Isa> available() {
  std::vector<Isa> all = {Isa::kBaseline};
  if (kernels::detect_isa() >= Isa::kAvx2) all.push_back(Isa::kAvx2);
  if (kernels::detect_isa() >= Isa::kAvx512) all.push_back(Isa::kAvx512);
  return all;
}

// The value of `dtype` nearest to `value` (ties to even), from the format's definition alone.
double nearest(double value, DType dtype) {
  if (dtype == kF64 || std::isnan(value)) return value;
  int mantissa = 23, lowest = -126;
  double largest = 0x1.fffffep127;
  bool saturate = false;
  if (dtype == kBF16) {
    mantissa = 7;
    largest = 0x1.fep127;
  } else if (dtype == kF16) {
    mantissa = 10;
    lowest = -14;
    largest = 65504.0;
  } else if (dtype == kF8) {
    mantissa = 3;
    lowest = -6;
    largest = 448.0;
    saturate = true;
  }
  if (std::isinf(value)) return saturate ? std::copysign(largest, value) : value;
  int exponent = lowest;
  if (value != 0.0) exponent = std::max(lowest, std::ilogb(value));
  const double step = std::ldexp(1.0, exponent - mantissa);
  const double rounded = std::nearbyint(value / step) * step;  // the default mode: to even
  if (std::fabs(rounded) <= largest) return std::copysign(rounded, value);
  return std::copysign(saturate ? largest : HUGE_VAL, value);
}

bool equal(double got, double want) {
  if (std::isnan(want)) return std::isnan(got);
  return got == want && std::signbit(got) == std::signbit(want);
}

// Values that make rounding hard: random magnitudes over the whole range, and neighbours of the
// midpoints of every narrow format.
std::vector<double> hard_values(std::size_t count) {
  std::vector<double> values = {
      0.0,   -0.0,    HUGE_VAL,        -HUGE_VAL, std::nan(""),    448.0,
      464.0, 65504.0, 65519.999999999, 65520.0,   3.4e38,          3.5e38,
      1e300, -1e300,  0x1p-149,        0x1p-150,  0x1.000001p-150, 1e-320};
  TestRandom random(11);
  const double tiny[] = {0.0, 0x1p-30, -0x1p-30, 0x1p-40, -0x1p-45};
  while (values.size() < count) {
    const int exponent = static_cast<int>(random.next() % 60) - 30;
    const int bits[] = {4, 8, 11, 24};  // one more than the format keeps: exactly a midpoint
    const int kept = bits[random.next() % 4];
    const double mantissa =
        1.0 + std::ldexp(static_cast<double>(random.next() & ((1u << kept) - 1u)), -kept);
    const double value = std::ldexp(mantissa + tiny[random.next() % 5], exponent);
    values.push_back((random.next() & 1u) != 0 ? value : -value);
  }
  return values;
}

TEST_CASE("cast: every pair of dtypes rounds exactly once") {
  const std::int64_t rows = 61, cols = 97;
  const auto values = hard_values(static_cast<std::size_t>(rows * cols));
  for (const Isa isa : available()) {
    for (const int threads : {1, 2}) {
      CpuContext context(threads, isa);
      for (const DType from : kAll) {
        for (const DType to : kAll) {
          for (const std::int64_t gap : {0, 5}) {
            GuardedMatrix src(from, rows, cols, gap), dst(to, rows, cols, gap);
            for (std::int64_t i = 0; i < rows * cols; ++i) {
              set_element(src.view(), i / cols, i % cols, values[static_cast<std::size_t>(i)]);
            }
            const Cast op{src.view(), {}, dst.view()};
            check(op);
            run(context, op);
            std::int64_t wrong = 0;
            double example = 0.0;
            for (std::int64_t i = 0; i < rows * cols; ++i) {
              const double source = element(src.view(), i / cols, i % cols);
              if (!equal(element(dst.view(), i / cols, i % cols), nearest(source, to))) {
                ++wrong;
                example = source;
              }
            }
            CHECK_MESSAGE(wrong == 0, dtype_name(from)
                                          << " to " << dtype_name(to) << " on " << isa_name(isa)
                                          << ": " << wrong << " wrong, such as " << example);
            CHECK(dst.intact());
            CHECK(src.intact());
          }
        }
      }
    }
  }
}

template <class T>
std::int64_t wrong_codes(CpuContext& context, std::uint32_t codes) {
  std::vector<T> src(codes);
  for (std::uint32_t i = 0; i < codes; ++i) src[i].bits = static_cast<decltype(T::bits)>(i);
  std::vector<float> wide(codes);
  std::vector<T> back(codes);
  const DType dtype = kernels::dtype_of_v<T>;
  const auto count = static_cast<std::int64_t>(codes);
  run(context, Cast{ConstView(src.data(), dtype, {count}), {}, View(wide.data(), kF32, {count})});
  run(context, Cast{ConstView(wide.data(), kF32, {count}), {}, View(back.data(), dtype, {count})});
  std::int64_t wrong = 0;
  for (std::uint32_t i = 0; i < codes; ++i) {
    const auto want = static_cast<float>(src[i]);
    if (std::isnan(want)) {
      wrong += std::isnan(wide[i]) && std::isnan(static_cast<float>(back[i])) ? 0 : 1;
      continue;
    }
    wrong += std::bit_cast<std::uint32_t>(wide[i]) == std::bit_cast<std::uint32_t>(want) &&
                     back[i].bits == src[i].bits
                 ? 0
                 : 1;
  }
  return wrong;
}

TEST_CASE("cast: every code of the narrow types there and back") {
  for (const Isa isa : available()) {
    CpuContext context(2, isa);
    CHECK(wrong_codes<bf16>(context, 65536) == 0);
    CHECK(wrong_codes<f16>(context, 65536) == 0);
    CHECK(wrong_codes<fp8_e4m3>(context, 256) == 0);
  }
}

TEST_CASE("cast: the vector conversions agree with the scalar ones on f32 bits") {
  constexpr std::int64_t kCount = 1 << 16;
  std::vector<float> src(kCount);
  std::vector<bf16> brain(kCount);
  std::vector<f16> half(kCount);
  std::vector<fp8_e4m3> eight(kCount);
  for (const Isa isa : available()) {
    CpuContext context(1, isa);
    TestRandom random(3);
    std::int64_t wrong = 0;
    for (int round = 0; round < 16; ++round) {
      for (float& value : src)
        value = std::bit_cast<float>(static_cast<std::uint32_t>(random.next()));
      const ConstView from(src.data(), kF32, {kCount});
      run(context, Cast{from, {}, View(brain.data(), kBF16, {kCount})});
      run(context, Cast{from, {}, View(half.data(), kF16, {kCount})});
      run(context, Cast{from, {}, View(eight.data(), kF8, {kCount})});
      for (std::size_t i = 0; i < src.size(); ++i) {
        wrong += brain[i].bits != bf16(src[i]).bits ? 1 : 0;
        wrong += half[i].bits != f16(src[i]).bits ? 1 : 0;
        wrong += eight[i].bits != fp8_e4m3(src[i]).bits ? 1 : 0;
      }
    }
    CHECK(wrong == 0);
  }
}

TEST_CASE("cast: FP8 blocks with every scale dtype, ragged edges") {
  for (const Isa isa : available()) {
    CpuContext context(2, isa);
    for (const DType scale_dtype : {kF32, kBF16, DType::kF8E8M0}) {
      for (const DType to : kAll) {
        for (const std::int64_t rows : {1, 128, 300}) {
          for (const std::int64_t cols : {1, 127, 128, 129, 400}) {
            GuardedMatrix src(kF8, rows, cols, 1), dst(to, rows, cols, 3);
            GuardedMatrix scale(scale_dtype, (rows + 127) / 128, (cols + 127) / 128, 2);
            TestRandom random(5);
            for (std::int64_t r = 0; r < rows; ++r) {
              for (std::int64_t c = 0; c < cols; ++c) {
                src.view().as<fp8_e4m3>()[r * src.view().row_stride() + c].bits =
                    static_cast<std::uint8_t>(random.next());
              }
            }
            fill_normal(scale.view(), 9);
            const Cast op{src.view(), scale.view(), dst.view()};
            check(op);
            run(context, op);
            std::int64_t wrong = 0;
            for (std::int64_t r = 0; r < rows; ++r) {
              for (std::int64_t c = 0; c < cols; ++c) {
                const auto product = static_cast<float>(element(src.view(), r, c) *
                                                        element(scale.view(), r / 128, c / 128));
                if (!equal(element(dst.view(), r, c), nearest(static_cast<double>(product), to))) {
                  ++wrong;
                }
              }
            }
            CHECK(wrong == 0);
            CHECK(dst.intact());
          }
        }
      }
    }
  }
}

TEST_CASE("cast: empty, one element, one long row, many threads") {
  CpuContext context(5, kernels::detect_isa());
  float dummy = 1.0f;
  bf16 out(7.0f);
  run(context, Cast{ConstView(&dummy, kF32, {0, 4}), {}, View(&out, kBF16, {0, 4})});
  run(context, Cast{ConstView(&dummy, kF32, {4, 0}), {}, View(&out, kBF16, {4, 0})});
  CHECK(static_cast<float>(out) == 7.0f);
  run(context, Cast{ConstView(&dummy, kF32, {}), {}, View(&out, kBF16, {})});
  CHECK(static_cast<float>(out) == 1.0f);
  std::vector<float> row(100003);
  for (std::size_t i = 0; i < row.size(); ++i) row[i] = static_cast<float>(i % 256);
  std::vector<bf16> narrow(row.size());
  const auto count = static_cast<std::int64_t>(row.size());
  run(context, Cast{ConstView(row.data(), kF32, {count}), {}, View(narrow.data(), kBF16, {count})});
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < row.size(); ++i) wrong += static_cast<float>(narrow[i]) != row[i];
  CHECK(wrong == 0);
}

TEST_CASE("cast: check names what is wrong") {
  std::vector<double> data(512 * 8);
  const auto message = [&](const Cast& op) {
    try {
      check(op);
    } catch (const std::invalid_argument& error) {
      return std::string(error.what());
    }
    return std::string("accepted");
  };
  const ConstView f8(data.data(), kF8, {129, 4});
  const View f32(data.data(), kF32, {129, 4});
  CHECK(message({f8, ConstView(data.data(), kF32, {2, 1}), f32}) == "accepted");
  CHECK(message({f8, ConstView(data.data(), kF32, {1, 1}), f32})
            .starts_with("cast: scale is [1, 1]"));
  CHECK(message({f8, ConstView(data.data(), kF16, {2, 1}), f32}).starts_with("cast: scale is F16"));
  CHECK(message({f32, ConstView(data.data(), kF32, {2, 1}), f32})
            .starts_with("cast: scale is given"));
  CHECK(message({ConstView(data.data(), DType::kI32, {129, 4}), {}, f32})
            .starts_with("cast: src is I32"));
  CHECK(message({f8, {}, View(data.data(), DType::kF8E5M2, {129, 4})})
            .starts_with("cast: dst is F8_E5M2"));
  CHECK(message({f8, {}, View(data.data(), kF32, {129, 5})}).starts_with("cast: src is [129, 4]"));
  CHECK(message({{}, {}, f32}).starts_with("cast: src is not given"));
  CHECK(cost(Cast{f8, ConstView(data.data(), kF32, {2, 1}), f32}).bytes == 129 * 4 * 5.0 + 8.0);
}

}  // namespace
}  // namespace ds::test
