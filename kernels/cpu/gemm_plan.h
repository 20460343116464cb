// How the products of one call are split over threads. Compiled once, for the baseline instruction
// set; cpu/ops/gemm.cpp walks the result.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/gemm.h"

namespace ds::kernels::cpu {

// An F32 matrix, or nothing.
struct Operand {
  const float* data = nullptr;
  std::int64_t stride = 0;
};

// A rectangle of one c that one thread computes.
struct GemmTile {
  const GemmProblem* problem = nullptr;
  std::int64_t row0 = 0, rows = 0, col0 = 0, cols = 0;
  // op(a) rows [row0, row0 + rows) in F32, transposed like the problem's a; nothing for F64.
  Operand a;
  Operand low_rank_a;
  bool vector = false;  // few rows: read b once in its own dtype instead of widening panels
  bool narrow = false;  // BF16 by BF16: `a` is nothing, both are read where they are
};

// A BF16 or F32 matrix to copy as F32 before the tiles begin; rows of dst are `stride` apart.
struct GemmWiden {
  ConstView src;
  float* dst = nullptr;
  std::int64_t stride = 0;
};

// Work between two barriers: first the widening, rows split over threads, then the tiles;
// thread t owns tiles [first[t], first[t + 1]).
struct GemmPass {
  const GemmWiden* widen = nullptr;
  std::int64_t widen_count = 0;
  const GemmTile* tiles = nullptr;
  const std::int64_t* first = nullptr;
};

inline constexpr std::int64_t kMaxVectorRows = 4;

// Columns and rows of the block a thread works on at a time, and the F32 scratch it needs.
struct GemmBlock {
  std::int64_t cols = 0;
  std::int64_t rows = 0;
  std::size_t b_floats = 0;  // widened panel of b
  std::size_t c_floats = 0;  // block of c, for a c that is not F32
  std::size_t a_floats = 0;  // packed rows of a, for the vector path
};
GemmBlock gemm_block(const GemmTile& tile);

class GemmPlan {
 public:
  // Cuts the line of all problems, measured in multiply-adds, into equal parts, one a thread. Takes
  // the context's shared scratch for the widened operands and sizes every thread's own scratch, so
  // that nothing is allocated while threads run.
  // One plan at a time for a context: its lists live there and are used again.
  GemmPlan(CpuContext& context, const Gemm& op);
  GemmPlan(const GemmPlan&) = delete;
  GemmPlan& operator=(const GemmPlan&) = delete;

  const GemmPass* passes() const;
  std::int64_t pass_count() const;
  // First byte of the thread's scratch; b panel, c block and a rows follow one another.
  float* scratch(int thread) const;

 private:
  struct Impl;
  Impl* impl_;
};

// Throws std::bad_alloc: the matrix library could not get its workspace.
[[noreturn]] void throw_library_failure();

}  // namespace ds::kernels::cpu
