// F32 products a^T b with one short side: the weight gradients of low-rank adapters.
#pragma once

#include <cstdint>

namespace ds::kernels::DSK_ISA {

// c [m, n] = alpha a^T b + beta c with a [k, m], b [k, n], beta 0 or 1.
struct NarrowProduct {
  std::int64_t m, n, k;
  float alpha;
  const float* a;
  std::int64_t lda;
  const float* b;
  std::int64_t ldb;
  float beta;
  float* c;
  std::int64_t ldc;
};

// Computes it if m or n is small enough for this to be faster than the matrix library, which packs
// the long operand; returns whether it did. Each sum is formed in an order that depends on k only.
bool multiply_narrow(const NarrowProduct& product);

}  // namespace ds::kernels::DSK_ISA
