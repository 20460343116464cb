// The innermost loop of small matrix products: a few rows times one or two vector registers of
// columns, with all sums in registers.
#pragma once

#include <cstdint>

namespace ds::kernels::DSK_ISA {

// Elements of a vector register. DSK_VECTOR_BYTES is the width of the instruction set's registers
// (kernels/CMakeLists.txt).
template <class A>
inline constexpr std::int64_t kVector = DSK_VECTOR_BYTES / sizeof(A);

// Element (i, p) of the left operand is data[i * row + p * step]: step 1 for a matrix [m, k], row 1
// for a transposed one.
template <class A>
struct Left {
  const A* data;
  std::int64_t row;
  std::int64_t step;
};

// c [kRows, kVectors * kVector] (+)= sum over p in [0, k) of left(i, p) * b(p), in the order of p.
// Rows of b are `b_stride` elements apart, those of c `c_stride`.
template <class A, int kRows, int kVectors>
void multiply_tile(std::int64_t k, Left<A> left, const A* b, std::int64_t b_stride, A* c,
                   std::int64_t c_stride, bool add) {
  typedef A Vector __attribute__((vector_size(DSK_VECTOR_BYTES), aligned(sizeof(A)), may_alias));
  Vector sums[kRows][kVectors];
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      if (add) {
        sums[i][j] = *reinterpret_cast<const Vector*>(c + i * c_stride + j * kVector<A>);
      } else {
        sums[i][j] = Vector{};
      }
    }
  }
  const A* a = left.data;
  for (std::int64_t p = 0; p < k; ++p, a += left.step, b += b_stride) {
    Vector row[kVectors];
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      row[j] = *reinterpret_cast<const Vector*>(b + j * kVector<A>);
    }
#pragma GCC unroll 8
    for (int i = 0; i < kRows; ++i) {
      const A value = a[i * left.row];
#pragma GCC unroll 2
      for (int j = 0; j < kVectors; ++j) sums[i][j] += value * row[j];
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
    for (int j = 0; j < kVectors; ++j) {
      *reinterpret_cast<Vector*>(c + i * c_stride + j * kVector<A>) = sums[i][j];
    }
  }
}

// The same for a number of rows from 1 to 6 known at run time.
template <class A, int kVectors>
void multiply_rows(std::int64_t rows, std::int64_t k, Left<A> left, const A* b,
                   std::int64_t b_stride, A* c, std::int64_t c_stride, bool add) {
  switch (rows) {
    case 1:
      return multiply_tile<A, 1, kVectors>(k, left, b, b_stride, c, c_stride, add);
    case 2:
      return multiply_tile<A, 2, kVectors>(k, left, b, b_stride, c, c_stride, add);
    case 3:
      return multiply_tile<A, 3, kVectors>(k, left, b, b_stride, c, c_stride, add);
    case 4:
      return multiply_tile<A, 4, kVectors>(k, left, b, b_stride, c, c_stride, add);
    case 5:
      return multiply_tile<A, 5, kVectors>(k, left, b, b_stride, c, c_stride, add);
    default:
      return multiply_tile<A, 6, kVectors>(k, left, b, b_stride, c, c_stride, add);
  }
}

}  // namespace ds::kernels::DSK_ISA
