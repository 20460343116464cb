#include <new>

#include "kernels/cuda/context_impl.h"

namespace ds::kernels {
namespace {

constexpr std::size_t kWorkspaceBytes = std::size_t{32} << 20;

// Makes the context's device the current one of the calling thread.
void select(const CudaContext::Impl& impl) {
  cuda::expect(cudaSetDevice(impl.device), "selecting the device");
}

void* allocate_device(std::size_t bytes) {
  void* memory = nullptr;
  const cudaError_t status = cudaMalloc(&memory, bytes == 0 ? 1 : bytes);
  if (status == cudaErrorMemoryAllocation) {
    static_cast<void>(cudaGetLastError());  // it is reported here; later calls must not see it
    throw std::bad_alloc();
  }
  cuda::expect(status, "allocating device memory");
  return memory;
}

void destroy(CudaContext::Impl* impl) {
  if (impl == nullptr) return;
  static_cast<void>(cudaSetDevice(impl->device));
  if (impl->stream != nullptr) static_cast<void>(cudaStreamSynchronize(impl->stream));
  if (impl->library != nullptr) static_cast<void>(cuda::cublaslt().destroy(impl->library));
  static_cast<void>(cudaFree(impl->workspace));
  static_cast<void>(cudaFree(impl->temporary));
  if (impl->stream != nullptr) static_cast<void>(cudaStreamDestroy(impl->stream));
}

}  // namespace

void* CudaContext::Impl::scratch(std::size_t bytes) {
  if (bytes > temporary_bytes) {
    // Work in flight may still use the old buffer; cudaFree waits for it.
    cuda::expect(cudaFree(temporary), "releasing device memory");
    temporary = nullptr;
    temporary_bytes = 0;
    temporary = allocate_device(bytes);
    temporary_bytes = bytes;
  }
  return temporary;
}

CudaContext::CudaContext(int device) {
  int count = 0;
  const cudaError_t found = cudaGetDeviceCount(&count);
  if (found != cudaSuccess || count == 0) {
    static_cast<void>(cudaGetLastError());
    throw std::runtime_error(
        std::string("CUDA: no usable device") +
        (found != cudaSuccess ? std::string(": ") + cudaGetErrorString(found) : std::string()));
  }
  if (device < 0 || device >= count) {
    throw std::runtime_error("CUDA: no device " + std::to_string(device) + ", there are " +
                             std::to_string(count));
  }
  auto impl = std::make_unique<Impl>();
  impl->device = device;
  try {
    select(*impl);
    cuda::expect(cudaStreamCreateWithFlags(&impl->stream, cudaStreamNonBlocking),
                 "creating a stream");
    cuda::expect(cuda::cublaslt().create(&impl->library), "creating cuBLASLt");
    impl->workspace = allocate_device(kWorkspaceBytes);
    impl->workspace_bytes = kWorkspaceBytes;
  } catch (...) {
    destroy(impl.get());
    throw;
  }
  impl_ = std::move(impl);
}

CudaContext::~CudaContext() { destroy(impl_.get()); }
CudaContext::CudaContext(CudaContext&&) noexcept = default;
CudaContext& CudaContext::operator=(CudaContext&& other) noexcept {
  if (this != &other) {
    destroy(impl_.get());
    impl_ = std::move(other.impl_);
  }
  return *this;
}

void CudaContext::synchronize() {
  select(*impl_);
  cuda::expect(cudaStreamSynchronize(impl_->stream), "waiting for the device");
}

void* CudaContext::allocate(std::size_t bytes) {
  select(*impl_);
  return allocate_device(bytes);
}

void CudaContext::release(void* memory) noexcept {
  static_cast<void>(cudaSetDevice(impl_->device));
  static_cast<void>(cudaFree(memory));
}

void CudaContext::copy_to_device(void* device, const void* host, std::size_t bytes) {
  select(*impl_);
  cuda::expect(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, impl_->stream),
               "copying to the device");
  synchronize();
}

void CudaContext::copy_to_host(void* host, const void* device, std::size_t bytes) {
  select(*impl_);
  cuda::expect(cudaMemcpyAsync(host, device, bytes, cudaMemcpyDeviceToHost, impl_->stream),
               "copying from the device");
  synchronize();
}

bool cuda_available() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  static_cast<void>(cudaGetLastError());
  return status == cudaSuccess && count > 0;
}

bool cuda_compiled() { return true; }

}  // namespace ds::kernels
