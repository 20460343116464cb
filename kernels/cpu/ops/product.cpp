// As in "Anatomy of High-Performance Matrix Multiplication" (Goto, van de Geijn) and BLIS: a panel
// of the right side stays in the first-level cache while the rows of a block of the left side,
// which is in the second, pass by.
#include "kernels/cpu/ops/product.h"

#include "kernels/cpu/gemm_plan.h"
#include "kernels/cpu/ops/block_scale.h"
#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/product_tile.h"
#include "kernels/cpu/ops/simd.h"
#include "kernels/cpu/ops/widen.h"

namespace ds::kernels::DSK_ISA {
namespace {

using cpu::kProductDepth;
using cpu::kProductLeft;
using cpu::kProductRight;

// Elements [col, col + n) of a row of the stored matrix as F32.
void widen_run(const ProductSide& side, std::int64_t row, std::int64_t col, std::int64_t n,
               float* dst) {
  const std::int64_t at = row * side.stride + col;
  switch (side.dtype) {
    case DType::kF32:
      return widen_row(static_cast<const float*>(side.data) + at, n, dst);
    case DType::kBF16:
      return widen_row(static_cast<const bf16*>(side.data) + at, n, dst);
    case DType::kF16:
      return widen_row(static_cast<const f16*>(side.data) + at, n, dst);
    default:
      break;
  }
  const fp8_e4m3* src = static_cast<const fp8_e4m3*>(side.data) + at - col;
  for (std::int64_t c = col; c < col + n;) {
    const std::int64_t end = least((c / kScaleBlock + 1) * kScaleBlock, col + n);
    const float scale =
        block_scale(*side.scale, (side.scale_row0 + row) / kScaleBlock, c / kScaleBlock);
    widen_fp8(src + c, end - c, scale, dst + (c - col));
    c = end;
  }
}

// Terms [p0, p0 + depth) of the rows [j0, j0 + rows) as panels [depth, kPanelWidth], rows beyond
// the last = 0. `wide` holds kPanelWidth rows of `depth`, or `rows` elements.
void pack(const ProductSide& side, std::int64_t j0, std::int64_t rows, std::int64_t p0,
          std::int64_t depth, float* wide, float* __restrict panels) {
  if (side.depth_last) {
    for (std::int64_t j = 0; j < rows; j += kPanelWidth) {
      const std::int64_t n = least(kPanelWidth, rows - j);
      if (side.dtype == DType::kF32) {
        const float* src =
            static_cast<const float*>(side.data) + (side.first + j0 + j) * side.stride + p0;
        transpose_panel(src, side.stride, n, depth, panels + j * depth);
        continue;
      }
      for (std::int64_t r = 0; r < n; ++r) {
        widen_run(side, side.first + j0 + j + r, p0, depth, wide + r * depth);
      }
      transpose_panel(wide, depth, n, depth, panels + j * depth);
    }
    return;
  }
  for (std::int64_t p = 0; p < depth; ++p) {
    const float* src =
        static_cast<const float*>(side.data) + (p0 + p) * side.stride + side.first + j0;
    if (side.dtype != DType::kF32) {
      widen_run(side, p0 + p, side.first + j0, rows, wide);
      src = wide;
    }
    std::int64_t j = 0;
    for (; j + kPanelWidth <= rows; j += kPanelWidth) {
      copy_panel_row(src + j, panels + j * depth + p * kPanelWidth);
    }
    if (j == rows) continue;
    float* to = panels + j * depth + p * kPanelWidth;
    for (std::int64_t i = 0; i < kPanelWidth; ++i) to[i] = j + i < rows ? src[j + i] : 0.0f;
  }
}

// The same terms of the rows [i0, i0 + rows) as the kernels read them: in place, or as a copy.
Left<float> open_left(const ProductSide& side, std::int64_t i0, std::int64_t rows, std::int64_t p0,
                      std::int64_t depth, float* copy) {
  if (side.depth_last) {
    if (side.dtype == DType::kF32) {
      return {static_cast<const float*>(side.data) + (side.first + i0) * side.stride + p0,
              side.stride, 1};
    }
    for (std::int64_t r = 0; r < rows; ++r) {
      widen_run(side, side.first + i0 + r, p0, depth, copy + r * depth);
    }
    return {copy, depth, 1};
  }
  for (std::int64_t p = 0; p < depth; ++p) {
    widen_run(side, p0 + p, side.first + i0, rows, copy + p * rows);
  }
  return {copy, 1, rows};
}

// Where the products of a block of the left side go.
struct Output {
  float* c;  // of the block's first row and the panel's first column
  std::int64_t stride;
  float alpha;
  bool add, transposed;
};

// One panel of `cols` columns times the rows of a block.
template <int kVectors>
void multiply_panel(std::int64_t rows, std::int64_t cols, std::int64_t depth, Left<float> left,
                    const float* panel, const Output& out) {
  constexpr std::int64_t kGroup = 24;
  const bool direct = !out.transposed && cols == kVectors * kVector<float>;
  alignas(64) float block[kGroup * kPanelWidth];
  for (std::int64_t g = 0; g < rows; g += kGroup) {
    const std::int64_t end = least(g + kGroup, rows);
    for (std::int64_t i = g; i < end;) {
      // Seven or eight rows are better as four and the rest than as six and one or two.
      const std::int64_t rest = end - i;
      const bool four = rest == 7 || rest == 8;
      const std::int64_t n = rest >= 12 && kVectors == 1 ? 12 : four ? 4 : least(6, rest);
      const Left<float> from{left.data + i * left.row, left.row, left.step};
      if (direct) {
        multiply_rows<kVectors>(n, depth, from, panel, out.alpha, out.c + i * out.stride,
                                out.stride, out.add);
      } else {
        multiply_rows<kVectors>(n, depth, from, panel, out.alpha, block + (i - g) * kPanelWidth,
                                kPanelWidth, false);
      }
      i += n;
    }
    if (direct) continue;
    if (out.transposed) {
      store_transposed(block, end - g, cols, out.c + g, out.stride, out.add);
      continue;
    }
    for (std::int64_t i = g; i < end; ++i) {
      const float* from = block + (i - g) * kPanelWidth;
      float* to = out.c + i * out.stride;
      for (std::int64_t j = 0; j < cols; ++j) to[j] = out.add ? to[j] + from[j] : from[j];
    }
  }
}

}  // namespace

void multiply(const Product& x, float* scratch) {
  const bool swap = x.a.depth_last && x.b.depth_last && x.m < x.n;
  const ProductSide& left = swap ? x.b : x.a;
  const ProductSide& right = swap ? x.a : x.b;
  const std::int64_t rows = swap ? x.n : x.m, cols = swap ? x.m : x.n;
  const std::int64_t most_cols = rows <= kProductLeft ? kProductRight / 4 : kProductRight;
  const std::int64_t blocks = (x.k + kProductDepth - 1) / kProductDepth;
  const std::int64_t most_depth = (x.k + blocks - 1) / blocks;
  float* panels = scratch;
  float* copy = panels + most_depth * least(kProductRight,
                                            (cols + kPanelWidth - 1) / kPanelWidth * kPanelWidth);
  for (std::int64_t j0 = 0; j0 < cols; j0 += most_cols) {
    const std::int64_t n = least(most_cols, cols - j0);
    for (std::int64_t p0 = 0; p0 < x.k; p0 += most_depth) {
      const std::int64_t depth = least(most_depth, x.k - p0);
      pack(right, j0, n, p0, depth, copy, panels);
      for (std::int64_t i0 = 0; i0 < rows; i0 += kProductLeft) {
        const std::int64_t m = least(kProductLeft, rows - i0);
        const Left<float> from = open_left(left, i0, m, p0, depth, copy);
        for (std::int64_t j = 0; j < n; j += kPanelWidth) {
          const std::int64_t width = least(kPanelWidth, n - j);
          float* c = swap ? x.c + (j0 + j) * x.c_stride + i0 : x.c + i0 * x.c_stride + j0 + j;
          const Output out{c, x.c_stride, x.alpha, x.add || p0 > 0, swap};
          const float* panel = panels + j * depth;
          if (width > kVector<float>) {
            multiply_panel<2>(m, width, depth, from, panel, out);
          } else {
            multiply_panel<1>(m, width, depth, from, panel, out);
          }
        }
      }
    }
  }
}

}  // namespace ds::kernels::DSK_ISA
