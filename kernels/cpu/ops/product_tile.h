// The register tiles of product.cpp, and its transpositions.
#pragma once

#include "kernels/cpu/ops/tile_product.h"

namespace ds::kernels::DSK_ISA {

// Columns of a packed panel.
inline constexpr std::int64_t kPanelWidth = 2 * kVector<float>;

// c [kRows, kVectors * kVector] = alpha * left [kRows, k] * panel [k, kPanelWidth], plus c when
// `add`; the sum runs in the order of p.
template <int kRows, int kVectors>
void product_tile(std::int64_t k, Left<float> left, const float* __restrict panel, float alpha,
                  float* __restrict c, std::int64_t c_stride, bool add) {
  typedef float Vector
      __attribute__((vector_size(DSK_VECTOR_BYTES), aligned(sizeof(float)), may_alias));
  Vector sums[kRows][kVectors] = {};
  // Two bases: six rows are as many as the addressing modes reach from one.
  const float* low = left.data;
  const float* high = left.data + 6 * left.row;
  for (std::int64_t p = 0; p < k; ++p) {
    Vector row[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      row[j] = *reinterpret_cast<const Vector*>(panel + j * kVector<float>);
    }
#pragma GCC unroll 12
    for (int i = 0; i < kRows; ++i) {
      const float value = i < 6 ? low[i * left.row] : high[(i - 6) * left.row];
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sums[i][j] += value * row[j];
    }
    low += left.step;
    if (kRows > 6) high += left.step;
    panel += kPanelWidth;
  }
#pragma GCC unroll 12
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      Vector* to = reinterpret_cast<Vector*>(c + i * c_stride + j * kVector<float>);
      *to = add ? *to + alpha * sums[i][j] : alpha * sums[i][j];
    }
  }
}

// The same for 1 to 6 rows known at run time, or 12 with one vector.
template <int kVectors>
void multiply_rows(std::int64_t rows, std::int64_t k, Left<float> left, const float* panel,
                   float alpha, float* c, std::int64_t c_stride, bool add) {
  switch (rows) {
    case 1:
      return product_tile<1, kVectors>(k, left, panel, alpha, c, c_stride, add);
    case 2:
      return product_tile<2, kVectors>(k, left, panel, alpha, c, c_stride, add);
    case 3:
      return product_tile<3, kVectors>(k, left, panel, alpha, c, c_stride, add);
    case 4:
      return product_tile<4, kVectors>(k, left, panel, alpha, c, c_stride, add);
    case 5:
      return product_tile<5, kVectors>(k, left, panel, alpha, c, c_stride, add);
    case 6:
      return product_tile<6, kVectors>(k, left, panel, alpha, c, c_stride, add);
    default:
      break;
  }
  if constexpr (kVectors == 1) product_tile<12, 1>(k, left, panel, alpha, c, c_stride, add);
}

typedef float Quad __attribute__((vector_size(16), aligned(sizeof(float)), may_alias));

// rows[i][j] = src[i * stride + j] becomes rows[j][i].
inline void load_transposed(const float* src, std::int64_t stride, Quad* rows) {
  Quad in[4];
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) in[i] = *reinterpret_cast<const Quad*>(src + i * stride);
  const Quad t0 = __builtin_shufflevector(in[0], in[1], 0, 4, 1, 5);
  const Quad t1 = __builtin_shufflevector(in[2], in[3], 0, 4, 1, 5);
  const Quad t2 = __builtin_shufflevector(in[0], in[1], 2, 6, 3, 7);
  const Quad t3 = __builtin_shufflevector(in[2], in[3], 2, 6, 3, 7);
  rows[0] = __builtin_shufflevector(t0, t1, 0, 1, 4, 5);
  rows[1] = __builtin_shufflevector(t0, t1, 2, 3, 6, 7);
  rows[2] = __builtin_shufflevector(t2, t3, 0, 1, 4, 5);
  rows[3] = __builtin_shufflevector(t2, t3, 2, 3, 6, 7);
}

// panel [depth, kPanelWidth] = the transpose of src [rows, depth]; columns from `rows` on = 0.
inline void transpose_panel(const float* __restrict src, std::int64_t stride, std::int64_t rows,
                            std::int64_t depth, float* __restrict panel) {
  std::int64_t i = 0;
  for (; i + 4 <= rows; i += 4) {
    const float* from = src + i * stride;
    float* to = panel + i;
    std::int64_t p = 0;
    for (; p + 4 <= depth; p += 4) {
      Quad out[4];
      load_transposed(from + p, stride, out);
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) *reinterpret_cast<Quad*>(to + (p + q) * kPanelWidth) = out[q];
    }
    for (; p < depth; ++p) {
      for (int r = 0; r < 4; ++r) to[p * kPanelWidth + r] = from[r * stride + p];
    }
  }
  for (; i < kPanelWidth; ++i) {
    for (std::int64_t p = 0; p < depth; ++p) {
      panel[p * kPanelWidth + i] = i < rows ? src[i * stride + p] : 0.0f;
    }
  }
}

inline void copy_panel_row(const float* __restrict src, float* __restrict dst) {
  for (int i = 0; i < kPanelWidth; ++i) dst[i] = src[i];
}

// c [cols, rows] (+)= the transpose of block [rows, cols], whose rows are kPanelWidth apart.
inline void store_transposed(const float* __restrict block, std::int64_t rows, std::int64_t cols,
                             float* __restrict c, std::int64_t stride, bool add) {
  std::int64_t j = 0;
  for (; j + 4 <= cols; j += 4) {
    float* to = c + j * stride;
    std::int64_t i = 0;
    for (; i + 4 <= rows; i += 4) {
      Quad out[4];
      load_transposed(block + i * kPanelWidth + j, kPanelWidth, out);
#pragma GCC unroll 4
      for (int q = 0; q < 4; ++q) {
        Quad* at = reinterpret_cast<Quad*>(to + q * stride + i);
        *at = add ? *at + out[q] : out[q];
      }
    }
    for (; i < rows; ++i) {
      for (int q = 0; q < 4; ++q) {
        const float value = block[i * kPanelWidth + j + q];
        to[q * stride + i] = add ? to[q * stride + i] + value : value;
      }
    }
  }
  for (; j < cols; ++j) {
    for (std::int64_t i = 0; i < rows; ++i) {
      const float value = block[i * kPanelWidth + j];
      c[j * stride + i] = add ? c[j * stride + i] + value : value;
    }
  }
}

}  // namespace ds::kernels::DSK_ISA
