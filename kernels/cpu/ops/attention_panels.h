// Matrix products of attention tiles. Blocks of 20 to 60 tokens, the usual fine-tuning rows, are
// too small for a library call, and causal masks make half of each block useless: these products
// take operands packed once per head and skip what the mask hides, a few rows at a time.
#pragma once

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"
#include "kernels/cpu/ops/tile_product.h"

namespace ds::kernels::DSK_ISA {

// Columns of a panel. A matrix b [depth, n] is packed as ceil(n / kPanel) panels [depth, kPanel].
template <class A>
inline constexpr std::int64_t kPanel = 2 * kVector<A>;
inline constexpr int kTileRows = 6;  // with two vectors a row: twelve sums in registers

template <class A>
inline std::int64_t panel_columns(std::int64_t n) {
  return (n + kPanel<A> - 1) / kPanel<A> * kPanel<A>;
}

// dst rows [row0, row0 + rows) of panels of this depth = src rows; columns up to the panel's end =
// 0.
template <class T>
inline void pack_rows(const T* src, std::int64_t stride, std::int64_t rows, std::int64_t cols,
                      acc_t<T> factor, acc_t<T>* dst, std::int64_t depth, std::int64_t row0) {
  using A = acc_t<T>;
  constexpr std::int64_t kWidth = kPanel<A>;
  for (std::int64_t c = 0; c < cols; c += kWidth) {
    A* __restrict to = dst + c * depth + row0 * kWidth;
    const T* __restrict from = src + c;
    if (c + kWidth <= cols) {
      for (std::int64_t r = 0; r < rows; ++r, from += stride, to += kWidth) {
        for (int j = 0; j < kWidth; ++j) to[j] = to_acc(from[j]) * factor;
      }
      continue;
    }
    for (std::int64_t r = 0; r < rows; ++r, from += stride, to += kWidth) {
      for (std::int64_t j = 0; j < kWidth; ++j) {
        to[j] = c + j < cols ? to_acc(from[j]) * factor : A(0);
      }
    }
  }
}

// Panels of the transposed matrix [depth = cols, rows]: rows of src become columns
// [col0, col0 + rows). What follows them in the last panel is left as it is.
template <class T>
inline void pack_columns(const T* src, std::int64_t stride, std::int64_t rows, std::int64_t cols,
                         acc_t<T>* dst, std::int64_t depth, std::int64_t depth0,
                         std::int64_t col0) {
  using A = acc_t<T>;
  constexpr std::int64_t kWidth = kPanel<A>;
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::int64_t column = col0 + r;
    A* __restrict to = dst + column / kWidth * kWidth * depth + depth0 * kWidth + column % kWidth;
    const T* __restrict from = src + r * stride;
    for (std::int64_t c = 0; c < cols; ++c) to[c * kWidth] = to_acc(from[c]);
  }
}

// What of a product the mask leaves for a tile of rows: columns [0, columns) and the terms
// [first, last) of each sum.
struct Span {
  std::int64_t columns, first, last;
};

// c [m, n] (+)= left [m, k] * panels [k, n]; `span(row, rows)` gives the Span of a tile of rows.
// `panels` points at the panel row of term 0 in the first panel; `depth` separates panels. Columns
// of c up to the next whole vector may be overwritten.
template <class A, class F>
void multiply(std::int64_t m, std::int64_t n, Left<A> left, const A* panels, std::int64_t depth,
              A* c, std::int64_t stride, bool add, F&& span) {
  for (std::int64_t j = 0; j < n; j += kPanel<A>) {
    const A* panel = panels + j * depth;
    for (std::int64_t i = 0; i < m; i += kTileRows) {
      const std::int64_t rows = least(kTileRows, m - i);
      const Span s = span(i, rows);
      const std::int64_t cols = least(n, s.columns) - j;
      if (cols <= 0 || (add && s.first >= s.last)) continue;
      const Left<A> from{left.data + i * left.row + s.first * left.step, left.row, left.step};
      const A* terms = panel + s.first * kPanel<A>;
      A* to = c + i * stride + j;
      if (cols > kVector<A>) {
        multiply_rows<A, 2>(rows, s.last - s.first, from, terms, kPanel<A>, to, stride, add);
      } else {
        multiply_rows<A, 1>(rows, s.last - s.first, from, terms, kPanel<A>, to, stride, add);
      }
    }
  }
}

// The causal mask of a block: query r sees the keys [0, diagonal + r] of the block.
struct Causal {
  std::int64_t diagonal;
  std::int64_t queries, keys;

  std::int64_t visible(std::int64_t query) const {
    const std::int64_t seen = diagonal + query + 1;
    return seen < 0 ? 0 : least(seen, keys);
  }
  // Entries of a row of scores the products below may read: a tile reaches a little further.
  std::int64_t touched(std::int64_t query) const { return visible(query + kTileRows); }

  // scores [queries, keys] = rows of queries times columns of keys, all `terms` terms
  auto scores(std::int64_t terms) const {
    return [this, terms](std::int64_t row, std::int64_t rows) {
      return Span{visible(row + rows - 1), 0, terms};
    };
  }
  // [queries, n] = scores * rows of keys
  auto per_query(std::int64_t n) const {
    return [this, n](std::int64_t row, std::int64_t rows) {
      return Span{n, 0, visible(row + rows - 1)};
    };
  }
  // [keys, n] = transposed scores * rows of queries
  auto per_key(std::int64_t n) const {
    return [this, n](std::int64_t row, std::int64_t) {
      const std::int64_t first = row - diagonal;
      return Span{n, first < 0 ? 0 : least(first, queries), queries};
    };
  }
};

}  // namespace ds::kernels::DSK_ISA
