// Matrix products: cuBLASLt where a and b have one dtype that it multiplies, a plain tiled kernel
// for mixed and FP8 operands.
#include "kernels/cuda/context_impl.h"
#include "kernels/gemm.h"

namespace ds::kernels {
namespace {

using cuda::Matrix;

constexpr int kTile = 16;

struct Product {
  std::int64_t m = 0, n = 0, k = 0, rank = 0, b_row0 = 0;
  Matrix a, b, scale, c, low_a, low_b;
  // Sums that the library already formed, alpha included, [m, n] without gaps; then k is 0.
  const float* partial = nullptr;
  bool trans_a = false, trans_b = false;
  double alpha = 1.0, beta = 0.0;
};

// c = alpha * op(a) op(b) + partial + beta * c + low_a op(low_b), rounded once.
template <class A>
__global__ void tiled(Product p) {
  __shared__ A a_tile[kTile][kTile + 1];
  __shared__ A b_tile[kTile][kTile + 1];
  const std::int64_t row = std::int64_t{blockIdx.y} * kTile + threadIdx.y;
  const std::int64_t col = std::int64_t{blockIdx.x} * kTile + threadIdx.x;
  A sum = 0;
  for (std::int64_t k0 = 0; k0 < p.k; k0 += kTile) {
    const std::int64_t a_col = k0 + threadIdx.x;
    const std::int64_t b_row = k0 + threadIdx.y;
    A a = 0, b = 0;
    if (row < p.m && a_col < p.k) {
      a = cuda::load<A>(p.a, p.trans_a ? a_col * p.a.stride + row : row * p.a.stride + a_col);
    }
    if (col < p.n && b_row < p.k) {
      const std::int64_t r = p.trans_b ? col : b_row;
      const std::int64_t c = p.trans_b ? b_row : col;
      b = cuda::load<A>(p.b, r * p.b.stride + c);
      if (p.scale.data != nullptr) {
        b *= cuda::load<A>(p.scale, (p.b_row0 + r) / 128 * p.scale.stride + c / 128);
      }
    }
    a_tile[threadIdx.y][threadIdx.x] = a;
    b_tile[threadIdx.y][threadIdx.x] = b;
    __syncthreads();
    for (int i = 0; i < kTile; ++i) sum += a_tile[threadIdx.y][i] * b_tile[i][threadIdx.x];
    __syncthreads();
  }
  if (row >= p.m || col >= p.n) return;
  sum *= static_cast<A>(p.alpha);
  if (p.partial != nullptr) sum += static_cast<A>(p.partial[row * p.n + col]);
  const std::int64_t at = row * p.c.stride + col;
  if (p.beta != 0.0) sum += cuda::load<A>(p.c, at);
  for (std::int64_t r = 0; r < p.rank; ++r) {
    sum += cuda::load<A>(p.low_a, row * p.low_a.stride + r) *
           cuda::load<A>(p.low_b, p.trans_b ? col * p.low_b.stride + r : r * p.low_b.stride + col);
  }
  cuda::store(p.c, at, sum);
}

void run_tiled(CudaContext::Impl& impl, const Product& p) {
  const dim3 grid(static_cast<unsigned>((p.n + kTile - 1) / kTile),
                  static_cast<unsigned>((p.m + kTile - 1) / kTile));
  const dim3 block(kTile, kTile);
  if (p.c.dtype == DType::kF64) {
    tiled<double><<<grid, block, 0, impl.stream>>>(p);
  } else {
    tiled<float><<<grid, block, 0, impl.stream>>>(p);
  }
  cuda::expect(cudaGetLastError(), "gemm");
}

cudaDataType data_type(DType dtype) {
  switch (dtype) {
    case DType::kF64:
      return CUDA_R_64F;
    case DType::kBF16:
      return CUDA_R_16BF;
    default:
      return CUDA_R_32F;
  }
}

// What the library may assume of an operand: the largest power of two up to 256 that divides its
// address and its row length in bytes.
std::uint32_t alignment(const Matrix& m) {
  const auto address = reinterpret_cast<std::uintptr_t>(m.data);
  const auto bytes = static_cast<std::uintptr_t>(m.stride * dtype_size(m.dtype));
  std::uint32_t result = 256;
  while (result > 1 && ((address | bytes) & (result - 1)) != 0) result /= 2;
  return result;
}

// Owns what one call of the library describes its operands with.
class Description {
 public:
  Description(const Product& p, const Matrix& c) {
    const bool f64 = p.a.dtype == DType::kF64;
    cuda::expect(
        cuda::cublaslt().desc_create(&operation_, f64 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F,
                                     f64 ? CUDA_R_64F : CUDA_R_32F),
        "describing a product");
    // The library thinks in columns: our row-major c is its transpose, so b comes first.
    const cublasOperation_t first = p.trans_b ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t second = p.trans_a ? CUBLAS_OP_T : CUBLAS_OP_N;
    set(CUBLASLT_MATMUL_DESC_TRANSA, first);
    set(CUBLASLT_MATMUL_DESC_TRANSB, second);
    layout(first_, p.b, p.trans_b ? p.k : p.n, p.trans_b ? p.n : p.k);
    layout(second_, p.a, p.trans_a ? p.m : p.k, p.trans_a ? p.k : p.m);
    layout(result_, c, p.n, p.m);
    cuda::expect(cuda::cublaslt().preference_create(&preference_), "describing a product");
  }
  ~Description() {
    if (preference_ != nullptr) cuda::cublaslt().preference_destroy(preference_);
    for (cublasLtMatrixLayout_t each : {first_, second_, result_}) {
      if (each != nullptr) cuda::cublaslt().layout_destroy(each);
    }
    if (operation_ != nullptr) cuda::cublaslt().desc_destroy(operation_);
  }
  Description(const Description&) = delete;
  Description& operator=(const Description&) = delete;

  // Whether the library had a kernel for the product.
  bool multiply(CudaContext::Impl& impl, const Product& p, const Matrix& c, double beta) {
    prefer(CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, impl.workspace_bytes);
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_A_BYTES, alignment(p.b));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_B_BYTES, alignment(p.a));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_C_BYTES, alignment(c));
    prefer(CUBLASLT_MATMUL_PREF_MIN_ALIGNMENT_D_BYTES, alignment(c));
    cublasLtMatmulHeuristicResult_t best{};
    int found = 0;
    const cublasStatus_t status = cuda::cublaslt().heuristic(
        impl.library, operation_, first_, second_, result_, result_, preference_, 1, &best, &found);
    if (status == CUBLAS_STATUS_NOT_SUPPORTED || (status == CUBLAS_STATUS_SUCCESS && found == 0)) {
      return false;
    }
    cuda::expect(status, "choosing a product kernel");
    const float alpha_f32 = static_cast<float>(p.alpha), beta_f32 = static_cast<float>(beta);
    const bool f64 = p.a.dtype == DType::kF64;
    const void* alpha_at = f64 ? static_cast<const void*>(&p.alpha) : &alpha_f32;
    const void* beta_at = f64 ? static_cast<const void*>(&beta) : &beta_f32;
    cuda::expect(
        cuda::cublaslt().matmul(impl.library, operation_, alpha_at, p.b.data, first_, p.a.data,
                                second_, beta_at, c.data, result_, c.data, result_, &best.algo,
                                impl.workspace, impl.workspace_bytes, impl.stream),
        "gemm");
    return true;
  }

 private:
  template <class T>
  void set(cublasLtMatmulDescAttributes_t attribute, const T& value) {
    cuda::expect(cuda::cublaslt().desc_set(operation_, attribute, &value, sizeof value),
                 "describing a product");
  }
  template <class T>
  void prefer(cublasLtMatmulPreferenceAttributes_t attribute, const T& value) {
    cuda::expect(cuda::cublaslt().preference_set(preference_, attribute, &value, sizeof value),
                 "describing a product");
  }
  static void layout(cublasLtMatrixLayout_t& layout, const Matrix& m, std::int64_t rows,
                     std::int64_t cols) {
    cuda::expect(cuda::cublaslt().layout_create(&layout, data_type(m.dtype),
                                                static_cast<std::uint64_t>(rows),
                                                static_cast<std::uint64_t>(cols), m.stride),
                 "describing a matrix");
  }

  cublasLtMatmulDesc_t operation_ = nullptr;
  cublasLtMatrixLayout_t first_ = nullptr, second_ = nullptr, result_ = nullptr;
  cublasLtMatmulPreference_t preference_ = nullptr;
};

bool library_multiply(CudaContext::Impl& impl, const Product& p, const Matrix& c, double beta) {
  Description description(p, c);
  return description.multiply(impl, p, c, beta);
}

Product product_of(const GemmProblem& problem) {
  Product p;
  p.m = problem.c.rows();
  p.n = problem.c.cols();
  p.k = problem.trans_a ? problem.a.rows() : problem.a.cols();
  p.rank = problem.low_rank_a ? problem.low_rank_a.cols() : 0;
  p.a = cuda::matrix(problem.a);
  p.b = cuda::matrix(problem.b);
  p.c = cuda::matrix(problem.c);
  if (problem.b_scale) p.scale = cuda::matrix(problem.b_scale);
  if (problem.low_rank_a) p.low_a = cuda::matrix(problem.low_rank_a);
  if (problem.low_rank_b) p.low_b = cuda::matrix(problem.low_rank_b);
  p.b_row0 = problem.b_row0;
  p.trans_a = problem.trans_a;
  p.trans_b = problem.trans_b;
  p.alpha = problem.alpha;
  p.beta = problem.beta;
  return p;
}

void run_one(CudaContext::Impl& impl, Product p) {
  // One dtype for a and b, and a c the library can write.
  const bool library =
      p.k > 0 && p.a.dtype == p.b.dtype && (p.c.dtype == p.a.dtype || p.c.dtype == DType::kF32);
  if (library && p.rank == 0 && library_multiply(impl, p, p.c, p.beta)) return;
  if (library && p.rank > 0 && p.c.dtype != DType::kF64) {
    // The low-rank term joins the sums before they are rounded.
    auto* sums = static_cast<float*>(impl.scratch(static_cast<std::size_t>(p.m) *
                                                  static_cast<std::size_t>(p.n) * sizeof(float)));
    if (library_multiply(impl, p, {sums, DType::kF32, p.n}, 0.0)) {
      p.partial = sums;
      p.k = 0;
    }
  }
  run_tiled(impl, p);
}

}  // namespace

void run(CudaContext& context, const Gemm& op) {
  CudaContext::Impl& impl = context.impl();
  cuda::expect(cudaSetDevice(impl.device), "selecting the device");
  for (const GemmProblem& problem : op.problems) {
    if (problem.c.size() == 0) continue;
    run_one(impl, product_of(problem));
  }
}

}  // namespace ds::kernels
