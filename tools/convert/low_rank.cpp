// The loops are compiled for three widths of vector and chosen at run time. No fused
// multiply-add (tools/CMakeLists.txt), so that all three give the same bits.
#include "tools/convert/low_rank.h"

#include <algorithm>
#include <cstring>
#include <utility>
#include <vector>

namespace ds::convert {

namespace {

constexpr std::int64_t kRows = 4;            // of a tile held in registers
constexpr std::int64_t kStripBytes = 32768;  // of columns of A that stay in the nearest cache

struct Call {
  const float* base;
  std::int64_t cols;
  const float* b;
  const float* a;  // [rank, width] from column `begin` on
  std::int64_t width;
  std::int64_t begin;
  std::int64_t rank;
  float scaling;
  float* out;
};

// Rows [i, i + 4) and columns [j, j + 2 * vector) of the call. Written out: compilers keep sums of
// an array in memory.
template <int kBytes>
[[gnu::always_inline]] inline void tile(const Call& call, std::int64_t i, std::int64_t j) {
  using Vector [[gnu::vector_size(kBytes)]] = float;
  Vector s00 = {}, s01 = {}, s10 = {}, s11 = {}, s20 = {}, s21 = {}, s30 = {}, s31 = {};
  const float* b0 = call.b + i * call.rank;
  const float* b1 = b0 + call.rank;
  const float* b2 = b1 + call.rank;
  const float* b3 = b2 + call.rank;
  const float* a = call.a + (j - call.begin);
  for (std::int64_t k = 0; k < call.rank; ++k, a += call.width) {
    Vector a0, a1;
    std::memcpy(&a0, a, kBytes);
    std::memcpy(&a1, a + kBytes / 4, kBytes);
    s00 += b0[k] * a0;
    s01 += b0[k] * a1;
    s10 += b1[k] * a0;
    s11 += b1[k] * a1;
    s20 += b2[k] * a0;
    s21 += b2[k] * a1;
    s30 += b3[k] * a0;
    s31 += b3[k] * a1;
  }
  const float* base = call.base + i * call.cols + j;
  float* out = call.out + i * call.cols + j;
  const auto store = [&](const Vector& low, const Vector& high) __attribute__((always_inline)) {
    Vector value;
    std::memcpy(&value, base, kBytes);
    value += call.scaling * low;
    std::memcpy(out, &value, kBytes);
    std::memcpy(&value, base + kBytes / 4, kBytes);
    value += call.scaling * high;
    std::memcpy(out + kBytes / 4, &value, kBytes);
    base += call.cols;
    out += call.cols;
  };
  store(s00, s01);
  store(s10, s11);
  store(s20, s21);
  store(s30, s31);
}

template <int kBytes>
[[gnu::always_inline]] inline void add_block(const Call& call, std::int64_t first,
                                             std::int64_t rows) {
  constexpr std::int64_t kStep = kBytes / 2;  // two vectors of floats
  const std::int64_t end = call.begin + call.width;
  const std::int64_t last = call.begin + call.width / kStep * kStep;
  std::int64_t i = first;
  for (; i + kRows <= first + rows; i += kRows) {
    for (std::int64_t j = call.begin; j < last; j += kStep) tile<kBytes>(call, i, j);
  }
  // What no tile covers: the right edge, and the last rows.
  for (std::int64_t row = first; row < first + rows; ++row) {
    for (std::int64_t j = row < i ? last : call.begin; j < end; ++j) {
      float sum = 0.0f;
      for (std::int64_t k = 0; k < call.rank; ++k) {
        sum += call.b[row * call.rank + k] * call.a[k * call.width + (j - call.begin)];
      }
      call.out[row * call.cols + j] = call.base[row * call.cols + j] + call.scaling * sum;
    }
  }
}

using Block = void (*)(const Call&, std::int64_t, std::int64_t);

[[gnu::target("avx512f")]] void add_avx512(const Call& call, std::int64_t first,
                                           std::int64_t rows) {
  add_block<64>(call, first, rows);
}
[[gnu::target("avx2")]] void add_avx2(const Call& call, std::int64_t first, std::int64_t rows) {
  add_block<32>(call, first, rows);
}
void add_baseline(const Call& call, std::int64_t first, std::int64_t rows) {
  add_block<16>(call, first, rows);
}

Block choose() {
  if (__builtin_cpu_supports("avx512f")) return add_avx512;
  if (__builtin_cpu_supports("avx2")) return add_avx2;
  return add_baseline;
}

}  // namespace

void add_low_rank(const float* base, std::int64_t count, std::int64_t cols, const float* b,
                  const float* a, std::int64_t rank, float scaling, float* out) {
  static const Block block = choose();
  // Rows that add something, in runs; the others keep their bits.
  std::vector<std::pair<std::int64_t, std::int64_t>> runs;
  for (std::int64_t row = 0; row < count; ++row) {
    const float* factors = b + row * rank;
    if (std::all_of(factors, factors + rank, [](float x) { return x == 0.0f; })) {
      if (out != base) {
        std::memcpy(out + row * cols, base + row * cols, static_cast<std::size_t>(cols) * 4);
      }
    } else if (!runs.empty() && runs.back().first + runs.back().second == row) {
      ++runs.back().second;
    } else {
      runs.emplace_back(row, 1);
    }
  }
  if (runs.empty()) return;
  const std::int64_t strip =
      std::min(cols, std::max<std::int64_t>(64, kStripBytes / (rank * 4) / 64 * 64));
  // A's rows lie a power of two apart: packed, they do not push each other out of the cache.
  std::vector<float> packed(static_cast<std::size_t>(rank * strip));
  for (std::int64_t j = 0; j < cols; j += strip) {
    const std::int64_t width = std::min(strip, cols - j);
    for (std::int64_t k = 0; k < rank; ++k) {
      std::memcpy(packed.data() + k * width, a + k * cols + j, static_cast<std::size_t>(width) * 4);
    }
    const Call call{base, cols, b, packed.data(), width, j, rank, scaling, out};
    for (const auto& [first, rows] : runs) block(call, first, rows);
  }
}

}  // namespace ds::convert
