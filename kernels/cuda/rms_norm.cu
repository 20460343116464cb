#include "kernels/cuda/context_impl.h"
#include "kernels/rms_norm.h"

namespace ds::kernels {
namespace {

constexpr int kBlock = 256;   // threads of a row
constexpr int kColumns = 32;  // columns of a weight-gradient block
constexpr int kRowLanes = 8;  // its rows read at a time

template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};

__device__ inline float widen(float x) { return x; }
__device__ inline double widen(double x) { return x; }
__device__ inline float widen(bf16 x) { return static_cast<float>(x); }

// Sum over the block in an order that depends on nothing but kBlock.
template <class A>
__device__ A block_sum(A value) {
  __shared__ A lanes[kBlock];
  lanes[threadIdx.x] = value;
  __syncthreads();
  for (int width = kBlock / 2; width > 0; width /= 2) {
    if (threadIdx.x < width) lanes[threadIdx.x] += lanes[threadIdx.x + width];
    __syncthreads();
  }
  return lanes[0];
}

template <class T, class A = typename Accumulate<T>::type>
__global__ void forward(const T* x, std::int64_t x_stride, const A* weight, T* y,
                        std::int64_t y_stride, A* rstd, std::int64_t dim, A eps) {
  x += blockIdx.x * x_stride;
  y += blockIdx.x * y_stride;
  A squares = 0;
  for (std::int64_t i = threadIdx.x; i < dim; i += kBlock) {
    const A value = widen(x[i]);
    squares += value * value;
  }
  const A scale = A(1) / sqrt(block_sum(squares) / static_cast<A>(dim) + eps);
  if (threadIdx.x == 0) rstd[blockIdx.x] = scale;
  for (std::int64_t i = threadIdx.x; i < dim; i += kBlock) {
    y[i] = static_cast<T>(weight[i] * widen(static_cast<T>(widen(x[i]) * scale)));
  }
}

template <class T, class A = typename Accumulate<T>::type>
__global__ void backward(const T* dy, std::int64_t dy_stride, const T* x, std::int64_t x_stride,
                         const A* weight, const A* rstd, T* dx, std::int64_t dx_stride,
                         std::int64_t dim, bool accumulate) {
  dy += blockIdx.x * dy_stride;
  x += blockIdx.x * x_stride;
  dx += blockIdx.x * dx_stride;
  const A scale = rstd[blockIdx.x];
  A product = 0;
  for (std::int64_t i = threadIdx.x; i < dim; i += kBlock) {
    product += widen(dy[i]) * weight[i] * widen(x[i]);
  }
  const A along = block_sum(product) * scale * scale * scale / static_cast<A>(dim);
  for (std::int64_t i = threadIdx.x; i < dim; i += kBlock) {
    const A value = widen(dy[i]) * weight[i] * scale - widen(x[i]) * along;
    dx[i] = static_cast<T>(accumulate ? widen(dx[i]) + value : value);
  }
}

// dweight += sum over tokens of dy * (normalised x, rounded to T); one block owns 32 columns, so
// the order of the sum is fixed.
template <class T, class A = typename Accumulate<T>::type>
__global__ void weight_gradient(const T* dy, std::int64_t dy_stride, const T* x,
                                std::int64_t x_stride, const A* rstd, A* dweight,
                                std::int64_t tokens, std::int64_t dim) {
  __shared__ A lanes[kRowLanes][kColumns];
  const std::int64_t col = std::int64_t{blockIdx.x} * kColumns + threadIdx.x;
  A sum = 0;
  if (col < dim) {
    for (std::int64_t t = threadIdx.y; t < tokens; t += kRowLanes) {
      sum += widen(dy[t * dy_stride + col]) *
             widen(static_cast<T>(widen(x[t * x_stride + col]) * rstd[t]));
    }
  }
  lanes[threadIdx.y][threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.y == 0 && col < dim) {
    A total = 0;
    for (int r = 0; r < kRowLanes; ++r) total += lanes[r][threadIdx.x];
    dweight[col] += total;
  }
}

template <class T>
void run_forward(CudaContext::Impl& impl, const RmsNormForward& op) {
  using A = typename Accumulate<T>::type;
  const auto tokens = static_cast<unsigned>(op.x.rows());
  forward<T><<<tokens, kBlock, 0, impl.stream>>>(op.x.as<T>(), op.x.row_stride(), op.weight.as<A>(),
                                                 op.y.as<T>(), op.y.row_stride(), op.rstd.as<A>(),
                                                 op.x.cols(), static_cast<A>(op.eps));
}

template <class T>
void run_backward(CudaContext::Impl& impl, const RmsNormBackward& op) {
  using A = typename Accumulate<T>::type;
  const auto tokens = static_cast<unsigned>(op.x.rows());
  const std::int64_t dim = op.x.cols();
  // The weight's gradient first: dx may be the memory of dy.
  if (op.dweight) {
    const auto blocks = static_cast<unsigned>((dim + kColumns - 1) / kColumns);
    weight_gradient<T><<<blocks, dim3(kColumns, kRowLanes), 0, impl.stream>>>(
        op.dy.as<T>(), op.dy.row_stride(), op.x.as<T>(), op.x.row_stride(), op.rstd.as<A>(),
        op.dweight.as<A>(), op.x.rows(), dim);
  }
  backward<T><<<tokens, kBlock, 0, impl.stream>>>(
      op.dy.as<T>(), op.dy.row_stride(), op.x.as<T>(), op.x.row_stride(), op.weight.as<A>(),
      op.rstd.as<A>(), op.dx.as<T>(), op.dx.row_stride(), dim, op.accumulate_dx);
}

}  // namespace

void run(CudaContext& context, const RmsNormForward& op) {
  if (op.x.rows() == 0) return;
  CudaContext::Impl& impl = context.impl();
  cuda::expect(cudaSetDevice(impl.device), "selecting the device");
  with_compute_type(op.x.dtype(), [&]<class T>() { run_forward<T>(impl, op); });
  cuda::expect(cudaGetLastError(), "rms_norm_forward");
}

void run(CudaContext& context, const RmsNormBackward& op) {
  if (op.x.rows() == 0) return;
  CudaContext::Impl& impl = context.impl();
  cuda::expect(cudaSetDevice(impl.device), "selecting the device");
  with_compute_type(op.x.dtype(), [&]<class T>() { run_backward<T>(impl, op); });
  cuda::expect(cudaGetLastError(), "rms_norm_backward");
}

}  // namespace ds::kernels
