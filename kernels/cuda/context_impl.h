// What the CUDA sources share: the context's state, error conversion, reading and writing elements
// whose dtype is known at run time only.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <stdexcept>
#include <string>

#include "kernels/context.h"
#include "kernels/cuda/cublaslt.h"
#include "kernels/types.h"
#include "kernels/view.h"

namespace ds::kernels {

struct CudaContext::Impl {
  int device = 0;
  cudaStream_t stream = nullptr;
  cublasLtHandle_t library = nullptr;
  void* workspace = nullptr;  // of the library
  std::size_t workspace_bytes = 0;
  void* temporary = nullptr;  // grows to the largest request, used by one op at a time
  std::size_t temporary_bytes = 0;

  // At least `bytes` bytes of device memory, valid until the next call. Ops run in stream order, so
  // one buffer serves all of them.
  void* scratch(std::size_t bytes);
};

namespace cuda {

inline void expect(cudaError_t status, const char* what) {
  if (status != cudaSuccess) {
    throw std::runtime_error(std::string("CUDA: ") + what + ": " + cudaGetErrorString(status));
  }
}
inline void expect(cublasStatus_t status, const char* what) {
  if (status != CUBLAS_STATUS_SUCCESS) {
    throw std::runtime_error(std::string("CUDA: ") + what + ": " +
                             cublaslt().status_string(status));
  }
}

// A matrix as kernels see it.
struct Matrix {
  void* data = nullptr;
  DType dtype = DType::kF32;
  std::int64_t stride = 0;
};
inline Matrix matrix(const ConstView& view) {
  return {const_cast<void*>(view.data()), view.dtype(), view.row_stride()};
}

template <class A>
__device__ inline A load(const Matrix& m, std::int64_t at) {
  switch (m.dtype) {
    case DType::kF32:
      return static_cast<A>(static_cast<const float*>(m.data)[at]);
    case DType::kF64:
      return static_cast<A>(static_cast<const double*>(m.data)[at]);
    case DType::kBF16:
      return static_cast<A>(static_cast<float>(static_cast<const bf16*>(m.data)[at]));
    case DType::kF16:
      return static_cast<A>(static_cast<float>(static_cast<const f16*>(m.data)[at]));
    case DType::kF8E4M3:
      return static_cast<A>(static_cast<float>(static_cast<const fp8_e4m3*>(m.data)[at]));
    default:
      return static_cast<A>(static_cast<float>(static_cast<const ue8m0*>(m.data)[at]));
  }
}

// f32 that a second rounding to a narrower type takes to the same place as the f64 itself: rounded
// towards zero, the last bit set when that was inexact.
__device__ inline float to_f32_for_narrowing(float value) { return value; }
__device__ inline float to_f32_for_narrowing(double value) {
  const float towards_zero = __double2float_rz(value);
  if (static_cast<double>(towards_zero) == value || value != value) return towards_zero;
  return __uint_as_float(__float_as_uint(towards_zero) | 1u);
}

template <class A>
__device__ inline void store(const Matrix& m, std::int64_t at, A value) {
  switch (m.dtype) {
    case DType::kF32:
      static_cast<float*>(m.data)[at] = static_cast<float>(value);
      return;
    case DType::kF64:
      static_cast<double*>(m.data)[at] = static_cast<double>(value);
      return;
    case DType::kBF16:
      static_cast<bf16*>(m.data)[at] = bf16(to_f32_for_narrowing(value));
      return;
    case DType::kF16:
      static_cast<f16*>(m.data)[at] = f16(to_f32_for_narrowing(value));
      return;
    default:
      static_cast<fp8_e4m3*>(m.data)[at] = fp8_e4m3(to_f32_for_narrowing(value));
      return;
  }
}

}  // namespace cuda
}  // namespace ds::kernels
