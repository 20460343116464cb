#include "kernels/cpu/ops/gemm_narrow.h"

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/tile_product.h"

namespace ds::kernels::DSK_ISA {
namespace {

constexpr std::int64_t kNarrow = 12;  // the short side at most
constexpr std::int64_t kDepth = 32;   // rows of the long operand that are read together
constexpr std::int64_t kRows = 4;     // of a tile; with three vectors a row: twelve sums
constexpr std::int64_t kSingle = kVector<float>;

// c [rows, kVectors * kSingle] (+)= left^T b for left [depth, kNarrow].
template <int kTileRows, int kVectors>
void add_tile(std::int64_t depth, const float* __restrict left, const float* __restrict b,
              std::int64_t ldb, float* __restrict c, std::int64_t ldc, bool add) {
  typedef float Vector
      __attribute__((vector_size(DSK_VECTOR_BYTES), aligned(sizeof(float)), may_alias));
  Vector sums[kTileRows][kVectors];
#pragma GCC unroll 4
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      sums[i][j] = add ? *reinterpret_cast<const Vector*>(c + i * ldc + j * kSingle) : Vector{};
    }
  }
  for (std::int64_t p = 0; p < depth; ++p, b += ldb) {
    Vector row[kVectors];
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) row[j] = *reinterpret_cast<const Vector*>(b + j * kSingle);
#pragma GCC unroll 4
    for (int i = 0; i < kTileRows; ++i) {
      const float value = left[p * kNarrow + i];
#pragma GCC unroll 3
      for (int j = 0; j < kVectors; ++j) sums[i][j] += value * row[j];
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < kTileRows; ++i) {
#pragma GCC unroll 3
    for (int j = 0; j < kVectors; ++j) {
      *reinterpret_cast<Vector*>(c + i * ldc + j * kSingle) = sums[i][j];
    }
  }
}

template <int kVectors>
void add_rows(std::int64_t rows, std::int64_t depth, const float* left, const float* b,
              std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  switch (rows) {
    case 1:
      return add_tile<1, kVectors>(depth, left, b, ldb, c, ldc, add);
    case 2:
      return add_tile<2, kVectors>(depth, left, b, ldb, c, ldc, add);
    case 3:
      return add_tile<3, kVectors>(depth, left, b, ldb, c, ldc, add);
    default:
      return add_tile<4, kVectors>(depth, left, b, ldb, c, ldc, add);
  }
}

// The same for columns that do not fill a vector.
void add_rest(std::int64_t rows, std::int64_t cols, std::int64_t depth, const float* left,
              const float* b, std::int64_t ldb, float* c, std::int64_t ldc, bool add) {
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      float sum = add ? c[i * ldc + j] : 0.0f;
      for (std::int64_t p = 0; p < depth; ++p) sum += left[p * kNarrow + i] * b[p * ldb + j];
      c[i * ldc + j] = sum;
    }
  }
}

// m at most kNarrow. A few rows of b at a time: b streams through the cache once, along its rows,
// while c stays in the first level.
void few_rows(const NarrowProduct& x) {
  constexpr std::int64_t kColumns = 768 / kSingle * kSingle;
  float left[kDepth * kNarrow];
  for (std::int64_t j0 = 0; j0 < x.n; j0 += kColumns) {
    const std::int64_t end = least(j0 + kColumns, x.n);
    for (std::int64_t p0 = 0; p0 < x.k; p0 += kDepth) {
      const std::int64_t depth = least(kDepth, x.k - p0);
      for (std::int64_t p = 0; p < depth; ++p) {
        for (std::int64_t i = 0; i < x.m; ++i) {
          left[p * kNarrow + i] = x.alpha * x.a[(p0 + p) * x.lda + i];
        }
      }
      const bool add = p0 > 0 || x.beta != 0.0f;
      for (std::int64_t j = j0; j < end;) {
        const std::int64_t vectors = least(3, (end - j) / kSingle);
        const std::int64_t cols = vectors > 0 ? vectors * kSingle : end - j;
        const float* b = x.b + p0 * x.ldb + j;
        for (std::int64_t i = 0; i < x.m; i += kRows) {
          const std::int64_t rows = least(kRows, x.m - i);
          float* c = x.c + i * x.ldc + j;
          if (vectors == 3) {
            add_rows<3>(rows, depth, left + i, b, x.ldb, c, x.ldc, add);
          } else if (vectors == 2) {
            add_rows<2>(rows, depth, left + i, b, x.ldb, c, x.ldc, add);
          } else if (vectors == 1) {
            add_rows<1>(rows, depth, left + i, b, x.ldb, c, x.ldc, add);
          } else {
            add_rest(rows, cols, depth, left + i, b, x.ldb, c, x.ldc, add);
          }
        }
        j += cols;
      }
    }
  }
}

// n at most kNarrow: c^T = b^T a, a block of it at a time.
void few_columns(const NarrowProduct& x) {
  constexpr std::int64_t kBlock = 480;
  float transposed[kNarrow * kBlock];
  for (std::int64_t i = 0; i < x.m; i += kBlock) {
    const std::int64_t rows = least(kBlock, x.m - i);
    few_rows({x.n, rows, x.k, x.alpha, x.b, x.ldb, x.a + i, x.lda, 0.0f, transposed, kBlock});
    for (std::int64_t r = 0; r < rows; ++r) {
      float* c = x.c + (i + r) * x.ldc;
      for (std::int64_t j = 0; j < x.n; ++j) {
        const float sum = transposed[j * kBlock + r];
        c[j] = x.beta == 0.0f ? sum : c[j] + sum;
      }
    }
  }
}

}  // namespace

bool multiply_narrow(const NarrowProduct& x) {
  if (x.k == 0) return false;
  if (x.m <= kNarrow) {
    few_rows(x);
  } else if (x.n <= kNarrow) {
    few_columns(x);
  } else {
    return false;
  }
  return true;
}

}  // namespace ds::kernels::DSK_ISA
