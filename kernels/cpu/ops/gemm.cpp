#include "kernels/gemm.h"

#include <dnnl.h>

#include "kernels/cpu/gemm_plan.h"
#include "kernels/cpu/isa_ops.h"
#include "kernels/cpu/ops/block_scale.h"
#include "kernels/cpu/ops/gemm_narrow.h"
#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"
#include "kernels/cpu/ops/widen.h"

// Exported by the library, whose own benchmarks call it; in none of its headers. Row-major, as
// dnnl_sgemm.
extern "C" dnnl_status_t dnnl_gemm_bf16bf16f32(char trans_a, char trans_b, dnnl_dim_t m,
                                               dnnl_dim_t n, dnnl_dim_t k, float alpha,
                                               const std::uint16_t* a, dnnl_dim_t lda,
                                               const std::uint16_t* b, dnnl_dim_t ldb, float beta,
                                               float* c, dnnl_dim_t ldc);

namespace ds::kernels::DSK_ISA {
namespace {

using cpu::GemmBlock;
using cpu::GemmPass;
using cpu::GemmTile;
using cpu::GemmWiden;

std::int64_t smaller(std::int64_t a, std::int64_t b) { return a < b ? a : b; }

// The one place that chooses the inner product of F32 blocks: c = alpha op(a) op(b) + beta c.
// Returns whether it worked.
bool multiply(bool trans_a, bool trans_b, std::int64_t m, std::int64_t n, std::int64_t k,
              float alpha, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
              float beta, float* c, std::int64_t ldc) {
  if (trans_a && !trans_b && multiply_narrow({m, n, k, alpha, a, lda, b, ldb, beta, c, ldc})) {
    return true;
  }
  return dnnl_sgemm(trans_a ? 'T' : 'N', trans_b ? 'T' : 'N', m, n, k, alpha, a, lda, b, ldb, beta,
                    c, ldc) == dnnl_success;
}

// The same for the rows of the problem from `row` on and its columns from `col` on, both operands
// in BF16 where they are.
bool multiply_bf16(const GemmProblem& p, std::int64_t row, std::int64_t m, std::int64_t col,
                   std::int64_t n, std::int64_t k, float* c, std::int64_t ldc) {
  const std::int64_t lda = p.a.row_stride(), ldb = p.b.row_stride();
  const bf16* a = p.a.as<bf16>() + (p.trans_a ? row : row * lda);
  const bf16* b = p.b.as<bf16>() + (p.trans_b ? col * ldb : col);
  return dnnl_gemm_bf16bf16f32(p.trans_a ? 'T' : 'N', p.trans_b ? 'T' : 'N', m, n, k,
                               static_cast<float>(p.alpha),
                               reinterpret_cast<const std::uint16_t*>(a), lda,
                               reinterpret_cast<const std::uint16_t*>(b), ldb,
                               static_cast<float>(p.beta), c, ldc) == dnnl_success;
}

template <class T>
void widen_rows(const GemmWiden& job, std::int64_t begin, std::int64_t end) {
  const T* src = job.src.as<T>();
  const std::int64_t cols = job.src.cols();
  for (std::int64_t r = begin; r < end; ++r) {
    widen_row(src + r * job.src.row_stride(), cols, job.dst + r * job.stride);
  }
}
// Share t of the jobs' rows.
void widen_share(const GemmPass& pass, int t, int threads) {
  for (std::int64_t w = 0; w < pass.widen_count; ++w) {
    const GemmWiden& job = pass.widen[w];
    const std::int64_t begin = job.src.rows() * t / threads;
    const std::int64_t end = job.src.rows() * (t + 1) / threads;
    if (job.src.dtype() == DType::kF32) {
      widen_rows<float>(job, begin, end);
    } else {
      widen_rows<bf16>(job, begin, end);
    }
  }
}

// Rows [r0, r0 + rows) and columns [c0, c0 + cols) of b as F32, `cols` apart.
template <class T>
void widen_block(const ConstView& b, std::int64_t r0, std::int64_t rows, std::int64_t c0,
                 std::int64_t cols, float* dst) {
  const T* data = b.as<T>() + c0;
  const std::int64_t stride = b.row_stride();
  for (std::int64_t r = 0; r < rows; ++r) {
    widen_row(data + (r0 + r) * stride, cols, dst + r * cols);
  }
}
void widen_scaled(const GemmProblem& p, std::int64_t r0, std::int64_t rows, std::int64_t c0,
                  std::int64_t cols, float* dst) {
  const fp8_e4m3* data = p.b.as<fp8_e4m3>();
  for (std::int64_t r = 0; r < rows; ++r) {
    const fp8_e4m3* src = data + (r0 + r) * p.b.row_stride();
    for (std::int64_t c = c0; c < c0 + cols;) {
      const std::int64_t end = smaller((c / kScaleBlock + 1) * kScaleBlock, c0 + cols);
      const float scale =
          block_scale(p.b_scale, (p.b_row0 + r0 + r) / kScaleBlock, c / kScaleBlock);
      widen_fp8(src + c, end - c, scale, dst + r * cols + (c - c0));
      c = end;
    }
  }
}

// op(b)'s columns [n0, n0 + n) over all of K, in the layout of the problem's b.
void widen_panel(const GemmProblem& p, std::int64_t n0, std::int64_t n, std::int64_t k,
                 float* dst) {
  const std::int64_t r0 = p.trans_b ? n0 : 0, rows = p.trans_b ? n : k;
  const std::int64_t c0 = p.trans_b ? 0 : n0, cols = p.trans_b ? k : n;
  switch (p.b.dtype()) {
    case DType::kBF16:
      return widen_block<bf16>(p.b, r0, rows, c0, cols, dst);
    case DType::kF16:
      return widen_block<f16>(p.b, r0, rows, c0, cols, dst);
    default:
      return widen_scaled(p, r0, rows, c0, cols, dst);
  }
}

// A block of c in F32: c itself, or scratch that is rounded to c at the end.
struct OutputBlock {
  float* data;
  std::int64_t stride;
};

OutputBlock open_output(const GemmProblem& p, std::int64_t row, std::int64_t rows, std::int64_t col,
                        std::int64_t cols, float* scratch) {
  if (p.c.dtype() == DType::kF32) {
    return {p.c.as<float>() + row * p.c.row_stride() + col, p.c.row_stride()};
  }
  if (p.beta != 0.0) {
    const bf16* c = p.c.as<bf16>() + col;
    for (std::int64_t r = 0; r < rows; ++r) {
      widen_row(c + (row + r) * p.c.row_stride(), cols, scratch + r * cols);
    }
  }
  return {scratch, cols};
}

void close_output(const GemmProblem& p, std::int64_t row, std::int64_t rows, std::int64_t col,
                  std::int64_t cols, const float* scratch) {
  if (p.c.dtype() == DType::kF32) return;
  bf16* c = p.c.as<bf16>() + col;
  for (std::int64_t r = 0; r < rows; ++r) {
    narrow_row(scratch + r * cols, cols, c + (row + r) * p.c.row_stride());
  }
}

void clear(const OutputBlock& out, std::int64_t rows, std::int64_t cols) {
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) out.data[r * out.stride + c] = 0.0f;
  }
}

bool add_low_rank(const GemmTile& tile, std::int64_t row, std::int64_t rows, std::int64_t col,
                  std::int64_t cols, const OutputBlock& out) {
  const GemmProblem& p = *tile.problem;
  if (!p.low_rank_a || p.low_rank_a.cols() == 0) return true;
  const std::int64_t stride = p.low_rank_b.row_stride();
  const float* b = p.low_rank_b.as<float>() + (p.trans_b ? col * stride : col);
  return multiply(false, p.trans_b, rows, cols, p.low_rank_a.cols(), 1.0f,
                  tile.low_rank_a.data + (row - tile.row0) * tile.low_rank_a.stride,
                  tile.low_rank_a.stride, b, stride, 1.0f, out.data, out.stride);
}

bool run_matrix(const GemmTile& tile, std::int64_t k, float* scratch) {
  const GemmProblem& p = *tile.problem;
  const GemmBlock block = gemm_block(tile);
  float* panel = scratch;
  float* c_scratch = scratch + block.b_floats;
  bool good = true;
  for (std::int64_t n0 = tile.col0; n0 < tile.col0 + tile.cols; n0 += block.cols) {
    const std::int64_t n = smaller(block.cols, tile.col0 + tile.cols - n0);
    const float* b = panel;
    std::int64_t ldb = p.trans_b ? k : n;
    if (k > 0 && !tile.narrow) {
      if (p.b.dtype() == DType::kF32) {
        ldb = p.b.row_stride();
        b = p.b.as<float>() + (p.trans_b ? n0 * ldb : n0);
      } else {
        widen_panel(p, n0, n, k, panel);
      }
    }
    for (std::int64_t m0 = 0; m0 < tile.rows; m0 += block.rows) {
      const std::int64_t m = smaller(block.rows, tile.rows - m0);
      const std::int64_t row = tile.row0 + m0;
      const OutputBlock out = open_output(p, row, m, n0, n, c_scratch);
      if (k > 0 && tile.narrow) {
        good &= multiply_bf16(p, row, m, n0, n, k, out.data, out.stride);
      } else if (k > 0) {
        good &= multiply(p.trans_a, p.trans_b, m, n, k, static_cast<float>(p.alpha),
                         tile.a.data + (p.trans_a ? m0 : m0 * tile.a.stride), tile.a.stride, b, ldb,
                         static_cast<float>(p.beta), out.data, out.stride);
      } else if (p.beta == 0.0) {
        clear(out, m, n);
      }
      good &= add_low_rank(tile, row, m, n0, n, out);
      close_output(p, row, m, n0, n, c_scratch);
    }
  }
  return good;
}

// Few rows: b is read once, in its own dtype. -----------------------------------------------------

// sums[m] = a[m] . b over k elements, for M rows that are `lda` apart.
template <int M, class T>
void dot_rows(const float* __restrict a, std::int64_t lda, const T* __restrict b, std::int64_t k,
              float* __restrict sums) {
  float lanes[M][kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= k; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const float value = to_acc(b[i + j]);
      for (int m = 0; m < M; ++m) lanes[m][j] += a[m * lda + i + j] * value;
    }
  }
  for (int j = 0; i < k; ++i, ++j) {
    const float value = to_acc(b[i]);
    for (int m = 0; m < M; ++m) lanes[m][j] += a[m * lda + i] * value;
  }
  for (int m = 0; m < M; ++m) sums[m] = reduce_lanes(lanes[m]);
}

template <int M, class T>
void dot_columns(const GemmProblem& p, const float* a, std::int64_t lda, std::int64_t k,
                 std::int64_t n0, std::int64_t n, float* sums) {
  const T* b = p.b.as<T>() + n0 * p.b.row_stride();
  for (std::int64_t c = 0; c < n; ++c, b += p.b.row_stride()) {
    float total[M] = {};
    if constexpr (dtype_of_v<T> == DType::kF32 || dtype_of_v<T> == DType::kBF16) {
      dot_rows<M>(a, lda, b, k, total);
    } else {
      // Widening takes many instructions here: once into the first-level cache, not once a row.
      for (std::int64_t k0 = 0; k0 < k; k0 += kScaleBlock) {
        const std::int64_t length = smaller(kScaleBlock, k - k0);
        float wide[kScaleBlock];
        if constexpr (dtype_of_v<T> == DType::kF8E4M3) {
          const std::int64_t row = (p.b_row0 + n0 + c) / kScaleBlock;
          widen_fp8(b + k0, length, block_scale(p.b_scale, row, k0 / kScaleBlock), wide);
        } else {
          widen_row(b + k0, length, wide);
        }
        float part[M];
        dot_rows<M>(a + k0, lda, wide, length, part);
        for (int m = 0; m < M; ++m) total[m] += part[m];
      }
    }
    for (int m = 0; m < M; ++m) sums[m * n + c] = total[m];
  }
}

template <class T>
void add_row(float factor, const T* __restrict b, std::int64_t n, float* __restrict sums) {
  for (std::int64_t i = 0; i < n; ++i) sums[i] += factor * to_acc(b[i]);
}

// The same for b in [K, N]: row after row of b, multiplied and added to the sums.
template <int M, class T>
void add_rows(const GemmProblem& p, const float* a, std::int64_t lda, std::int64_t k,
              std::int64_t n0, std::int64_t n, float* __restrict sums) {
  for (std::int64_t i = 0; i < M * n; ++i) sums[i] = 0.0f;
  const T* __restrict b = p.b.as<T>() + n0;
  for (std::int64_t r = 0; r < k; ++r, b += p.b.row_stride()) {
    if constexpr (dtype_of_v<T> == DType::kF8E4M3) {
      for (std::int64_t c0 = 0; c0 < n;) {
        const std::int64_t block = (n0 + c0) / kScaleBlock;
        const std::int64_t length = smaller(n - c0, (block + 1) * kScaleBlock - (n0 + c0));
        float wide[kScaleBlock];
        widen_fp8(b + c0, length, block_scale(p.b_scale, (p.b_row0 + r) / kScaleBlock, block),
                  wide);
        for (int m = 0; m < M; ++m) add_row(a[m * lda + r], wide, length, sums + m * n + c0);
        c0 += length;
      }
    } else {
      for (int m = 0; m < M; ++m) add_row(a[m * lda + r], b, n, sums + m * n);
    }
  }
}

template <int M, class T>
void vector_sums(const GemmProblem& p, const float* a, std::int64_t lda, std::int64_t k,
                 std::int64_t n0, std::int64_t n, float* sums) {
  if (p.trans_b) {
    dot_columns<M, T>(p, a, lda, k, n0, n, sums);
  } else {
    add_rows<M, T>(p, a, lda, k, n0, n, sums);
  }
}

template <int M>
void vector_sums(const GemmProblem& p, const float* a, std::int64_t lda, std::int64_t k,
                 std::int64_t n0, std::int64_t n, float* sums) {
  switch (p.b.dtype()) {
    case DType::kF32:
      return vector_sums<M, float>(p, a, lda, k, n0, n, sums);
    case DType::kBF16:
      return vector_sums<M, bf16>(p, a, lda, k, n0, n, sums);
    case DType::kF16:
      return vector_sums<M, f16>(p, a, lda, k, n0, n, sums);
    default:
      return vector_sums<M, fp8_e4m3>(p, a, lda, k, n0, n, sums);
  }
}

template <class C>
void finish_vector(const GemmTile& tile, std::int64_t n0, std::int64_t n, const float* sums) {
  const GemmProblem& p = *tile.problem;
  const auto alpha = static_cast<float>(p.alpha);
  const std::int64_t rank = p.low_rank_a ? p.low_rank_a.cols() : 0;
  for (std::int64_t m = 0; m < tile.rows; ++m) {
    C* c = p.c.as<C>() + (tile.row0 + m) * p.c.row_stride() + n0;
    for (std::int64_t j = 0; j < n; ++j) {
      float value = alpha * sums[m * n + j];
      if (p.beta != 0.0) value += to_acc(c[j]);
      if (rank > 0) {
        const float* low_a = tile.low_rank_a.data + m * tile.low_rank_a.stride;
        const float* low_b = p.low_rank_b.as<float>();
        const std::int64_t stride = p.low_rank_b.row_stride();
        for (std::int64_t r = 0; r < rank; ++r) {
          value +=
              low_a[r] * (p.trans_b ? low_b[(n0 + j) * stride + r] : low_b[r * stride + n0 + j]);
        }
      }
      c[j] = from_acc<C>(value);
    }
  }
}

void run_vector(const GemmTile& tile, std::int64_t k, float* scratch) {
  const GemmProblem& p = *tile.problem;
  const GemmBlock block = gemm_block(tile);
  float* sums = scratch + block.a_floats;
  const float* a = tile.a.data;
  std::int64_t lda = tile.a.stride;
  if (p.trans_a && k > 0) {
    for (std::int64_t r = 0; r < k; ++r) {
      for (std::int64_t m = 0; m < tile.rows; ++m) scratch[m * k + r] = a[r * lda + m];
    }
    a = scratch;
    lda = k;
  }
  for (std::int64_t n0 = tile.col0; n0 < tile.col0 + tile.cols; n0 += block.cols) {
    const std::int64_t n = smaller(block.cols, tile.col0 + tile.cols - n0);
    if (k == 0) {
      for (std::int64_t i = 0; i < tile.rows * n; ++i) sums[i] = 0.0f;
    } else {
      switch (tile.rows) {
        case 1:
          vector_sums<1>(p, a, lda, k, n0, n, sums);
          break;
        case 2:
          vector_sums<2>(p, a, lda, k, n0, n, sums);
          break;
        case 3:
          vector_sums<3>(p, a, lda, k, n0, n, sums);
          break;
        default:
          vector_sums<4>(p, a, lda, k, n0, n, sums);
          break;
      }
    }
    if (p.c.dtype() == DType::kF32) {
      finish_vector<float>(tile, n0, n, sums);
    } else {
      finish_vector<bf16>(tile, n0, n, sums);
    }
  }
}

// F64, for gradient checks: plain loops. ----------------------------------------------------------

void run_f64(const GemmTile& tile, std::int64_t k, double* a_row) {
  const GemmProblem& p = *tile.problem;
  const double* b = k > 0 ? p.b.as<double>() : nullptr;
  const std::int64_t ldb = p.b.row_stride();
  const std::int64_t rank = p.low_rank_a ? p.low_rank_a.cols() : 0;
  for (std::int64_t m = tile.row0; m < tile.row0 + tile.rows; ++m) {
    for (std::int64_t i = 0; i < k; ++i) {
      const double* a = p.a.as<double>();
      a_row[i] = p.trans_a ? a[i * p.a.row_stride() + m] : a[m * p.a.row_stride() + i];
    }
    double* c = p.c.as<double>() + m * p.c.row_stride();
    for (std::int64_t n = tile.col0; n < tile.col0 + tile.cols; ++n) {
      double total = 0.0;
      if (p.trans_b) {
        if (k > 0) total = dot(a_row, b + n * ldb, k);
      } else {
        for (std::int64_t i = 0; i < k; ++i) total += a_row[i] * b[i * ldb + n];
      }
      double value = p.alpha * total;
      if (p.beta != 0.0) value += c[n];
      for (std::int64_t r = 0; r < rank; ++r) {
        const std::int64_t stride = p.low_rank_b.row_stride();
        value += p.low_rank_a.as<double>()[m * p.low_rank_a.row_stride() + r] *
                 p.low_rank_b.as<double>()[p.trans_b ? n * stride + r : r * stride + n];
      }
      c[n] = value;
    }
  }
}

bool run_tile(const GemmTile& tile, float* scratch) {
  const GemmProblem& p = *tile.problem;
  const std::int64_t k = p.trans_a ? p.a.rows() : p.a.cols();
  if (p.c.dtype() == DType::kF64) {
    run_f64(tile, k, reinterpret_cast<double*>(scratch));
  } else if (tile.vector) {
    run_vector(tile, k, scratch);
  } else {
    return run_matrix(tile, k, scratch);
  }
  return true;
}

}  // namespace

void run(CpuContext& context, const Gemm& op) {
  const cpu::GemmPlan plan(context, op);
  const int threads = context.threads();
  int failures = 0;
  for (std::int64_t i = 0; i < plan.pass_count(); ++i) {
    const GemmPass& pass = plan.passes()[i];
    if (pass.widen_count > 0) {
      parallel(context, threads, [&](int me, int team) { widen_share(pass, me, team); });
    }
    parallel(context, threads, [&](int me, int) {
      for (std::int64_t at = pass.first[me]; at < pass.first[me + 1]; ++at) {
        if (!run_tile(pass.tiles[at], plan.scratch(me))) count_one(failures);
      }
    });
  }
  if (failures > 0) cpu::throw_library_failure();
}

}  // namespace ds::kernels::DSK_ISA
