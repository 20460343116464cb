#include "kernels/elementwise.h"

#include <Random123/philox.h>

#include <cmath>

#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"

namespace ds::test {
namespace {

using kernels::AddScaled;
using kernels::Dropout;
using kernels::ScaleColumns;

struct Size {
  std::int64_t rows, cols;
};
constexpr Size kSizes[] = {{1, 1}, {3, 37}, {67, 301}, {2, 20001}};

// Philox4x32-10 written out from the paper (Salmon et al. 2011), independent of Random123.
struct Words {
  std::uint32_t at[4];
};
Words philox(std::uint64_t low, std::uint64_t high, std::uint64_t key) {
  Words c{{static_cast<std::uint32_t>(low), static_cast<std::uint32_t>(low >> 32),
           static_cast<std::uint32_t>(high), static_cast<std::uint32_t>(high >> 32)}};
  auto k0 = static_cast<std::uint32_t>(key);
  auto k1 = static_cast<std::uint32_t>(key >> 32);
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53} * c.at[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57} * c.at[2];
    c = {{static_cast<std::uint32_t>(p1 >> 32) ^ c.at[1] ^ k0, static_cast<std::uint32_t>(p1),
          static_cast<std::uint32_t>(p0 >> 32) ^ c.at[3] ^ k1, static_cast<std::uint32_t>(p0)}};
    k0 += 0x9E3779B9;
    k1 += 0xBB67AE85;
  }
  return c;
}

}  // namespace

void parity(Of<AddScaled>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      for (const DType from : {DType::kF64, DType::kF32, DType::kBF16}) {
        for (const bool accumulate : {false, true}) {
          CpuContext context = s.context();
          GuardedMatrix x = random_matrix(from, size.rows, size.cols, s.gap, 1);
          GuardedMatrix y = random_matrix(s.dtype, size.rows, size.cols, s.gap, 2);
          const Mat in(x.view());
          Mat want(y.view());
          for (std::size_t i = 0; i < want.values.size(); ++i) {
            want.values[i] = (accumulate ? want.values[i] : 0.0) - 1.5 * in.values[i];
          }
          const AddScaled op{x.view(), y.view(), -1.5, accumulate};
          check(op);
          run(context, op);
          expect_close(y.view(), want, tolerance_for(s.dtype, 2));
          CHECK(y.intact());
        }
      }
    });
  }
}

void parity(Of<ScaleColumns>) {
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      CpuContext context = s.context();
      GuardedMatrix x = random_matrix(s.dtype, size.rows, size.cols, s.gap, 1);
      GuardedMatrix factor = random_matrix(s.statistics(), 1, size.cols, 0, 2);
      GuardedMatrix y(s.dtype, size.rows, size.cols, s.gap);
      const ScaleColumns op{x.view(), factor.vector(), y.view()};
      check(op);
      run(context, op);
      const Mat f(factor.view());
      Mat want(x.view());
      for (std::int64_t r = 0; r < size.rows; ++r) {
        for (std::int64_t i = 0; i < size.cols; ++i) want(r, i) *= f(0, i);
      }
      expect_close(y.view(), want, tolerance_for(s.dtype, 1));
      CHECK(y.intact());
      run(context, ScaleColumns{x.view(), factor.vector(), x.view()});
      CHECK(Mat(x.view()).values == Mat(y.view()).values);
    });
  }
}

void parity(Of<Dropout>) {
  const std::uint64_t seed = 0x123456789abcdef0u, stream = 0xfedcba9876543210u;
  for (const Size size : kSizes) {
    for_settings([&](const Setting& s) {
      for (const bool accumulate : {false, true}) {
        CpuContext context = s.context();
        GuardedMatrix x = random_matrix(s.dtype, size.rows, size.cols, s.gap, 1);
        GuardedMatrix y = random_matrix(s.dtype, size.rows, size.cols, s.gap, 2);
        const double p = 0.3;
        const Mat in(x.view());
        Mat want(y.view());
        for (std::size_t i = 0; i < want.values.size(); ++i) {
          const bool dropped = philox(i / 4, stream, seed).at[i % 4] < p * 0x1p32;
          const double value = dropped ? 0.0 : in.values[i] / (1.0 - p);
          want.values[i] = value + (accumulate ? want.values[i] : 0.0);
        }
        const Dropout op{x.view(), y.view(), p, seed, stream, accumulate};
        check(op);
        run(context, op);
        expect_close(y.view(), want, tolerance_for(s.dtype, 2));
        CHECK(y.intact());
      }
    });
  }
}

TEST_CASE("dropout: known answers of Philox4x32-10") {
  // kat_vectors of Random123: counter and key 0, all ones, and digits of pi.
  const Words zero = philox(0, 0, 0);
  CHECK(zero.at[0] == 0x6627e8d5);
  CHECK(zero.at[1] == 0xe169c58d);
  CHECK(zero.at[2] == 0xbc57ac4c);
  CHECK(zero.at[3] == 0x9b00dbd8);
  const Words ones = philox(~0ull, ~0ull, ~0ull);
  CHECK(ones.at[0] == 0x408f276d);
  CHECK(ones.at[3] == 0x6d5451fd);
  const philox4x32_ctr_t counter = {{1, 2, 3, 4}};
  const philox4x32_key_t key = {{5, 6}};
  const philox4x32_ctr_t library = philox4x32(counter, key);
  const Words own = philox(0x200000001u, 0x400000003u, 0x600000005u);
  for (int i = 0; i < 4; ++i) CHECK(own.at[i] == library.v[i]);
}

TEST_CASE("dropout of every p drops that share and keeps the mean") {
  CpuContext context(2, kernels::detect_isa());
  GuardedMatrix x(DType::kF32, 64, 1024), y(DType::kF32, 64, 1024);
  fill(x.view(), 1.0);
  for (const double p : {0.0, 0.05, 0.5, 0.95}) {
    run(context, Dropout{x.view(), y.view(), p, 7, 11});
    double kept = 0.0, total = 0.0;
    for (const double value : to_doubles(y.view())) {
      kept += value != 0.0;
      total += value;
    }
    const double n = 65536.0;
    CHECK(std::fabs(kept / n - (1.0 - p)) <= 5.0 * std::sqrt(p * (1.0 - p) / n));
    CHECK(total == doctest::Approx(kept / (1.0 - p)).epsilon(1e-6));
  }
}

TEST_CASE("elementwise ops refuse operands that do not fit") {
  GuardedMatrix x = random_matrix(DType::kF32, 2, 4, 0, 1);
  GuardedMatrix y(DType::kF32, 4, 2), integers(DType::kI32, 2, 4);
  CHECK_THROWS_WITH_AS(check(AddScaled{x.view(), y.view()}), "add_scaled: y is [4, 2], need [2, 4]",
                       std::invalid_argument);
  CHECK_THROWS_WITH_AS(check(AddScaled{integers.view(), x.view()}),
                       "add_scaled: x is I32, need F32, BF16 or F64", std::invalid_argument);
  CHECK_THROWS_AS(check(ScaleColumns{x.view(), y.view(), x.view()}), std::invalid_argument);
  for (const double p : {-0.1, 1.0, std::nan("")}) {
    CHECK_THROWS_AS(check(Dropout{x.view(), x.view(), p}), std::invalid_argument);
  }
}

}  // namespace ds::test
