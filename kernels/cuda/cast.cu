#include "kernels/cast.h"
#include "kernels/cuda/context_impl.h"

namespace ds::kernels {
namespace {

constexpr int kBlock = 256;

__global__ void cast_f64(cuda::Matrix src, cuda::Matrix dst, std::int64_t rows, std::int64_t cols) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i >= rows * cols) return;
  const std::int64_t row = i / cols, col = i % cols;
  cuda::store(dst, row * dst.stride + col, cuda::load<double>(src, row * src.stride + col));
}

// Every source but F64. A scale multiplies in f32.
__global__ void cast_f32(cuda::Matrix src, cuda::Matrix scale, cuda::Matrix dst, std::int64_t rows,
                         std::int64_t cols) {
  const std::int64_t i = std::int64_t{blockIdx.x} * kBlock + threadIdx.x;
  if (i >= rows * cols) return;
  const std::int64_t row = i / cols, col = i % cols;
  float value = cuda::load<float>(src, row * src.stride + col);
  if (scale.data != nullptr) {
    value *= cuda::load<float>(scale, row / 128 * scale.stride + col / 128);
  }
  cuda::store(dst, row * dst.stride + col, value);
}

}  // namespace

void run(CudaContext& context, const Cast& op) {
  const std::int64_t rows = op.src.rows(), cols = op.src.cols();
  if (rows == 0 || cols == 0) return;
  CudaContext::Impl& impl = context.impl();
  cuda::expect(cudaSetDevice(impl.device), "selecting the device");
  const auto blocks = static_cast<unsigned>((rows * cols + kBlock - 1) / kBlock);
  if (op.src.dtype() == DType::kF64) {
    cast_f64<<<blocks, kBlock, 0, impl.stream>>>(cuda::matrix(op.src), cuda::matrix(op.dst), rows,
                                                 cols);
  } else {
    const cuda::Matrix scale = op.scale ? cuda::matrix(op.scale) : cuda::Matrix{};
    cast_f32<<<blocks, kBlock, 0, impl.stream>>>(cuda::matrix(op.src), scale, cuda::matrix(op.dst),
                                                 rows, cols);
  }
  cuda::expect(cudaGetLastError(), "cast");
}

}  // namespace ds::kernels
