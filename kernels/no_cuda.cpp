// Stands in for cuda/ in a build without CUDA.
#include <stdexcept>

#include "kernels/cast.h"
#include "kernels/context.h"
#include "kernels/gemm.h"
#include "kernels/rms_norm.h"

namespace ds::kernels {
namespace {

[[noreturn]] void fail() {
  throw std::runtime_error("CUDA: this program was built without CUDA support");
}

}  // namespace

struct CudaContext::Impl {};

CudaContext::CudaContext(int) { fail(); }
CudaContext::~CudaContext() = default;
CudaContext::CudaContext(CudaContext&&) noexcept = default;
CudaContext& CudaContext::operator=(CudaContext&&) noexcept = default;
void CudaContext::synchronize() { fail(); }
void* CudaContext::allocate(std::size_t) { fail(); }
void CudaContext::release(void*) noexcept {}
void CudaContext::copy_to_device(void*, const void*, std::size_t) { fail(); }
void CudaContext::copy_to_host(void*, const void*, std::size_t) { fail(); }

bool cuda_available() { return false; }
bool cuda_compiled() { return false; }

void run(CudaContext&, const Gemm&) { fail(); }
void run(CudaContext&, const Cast&) { fail(); }
void run(CudaContext&, const RmsNormForward&) { fail(); }
void run(CudaContext&, const RmsNormBackward&) { fail(); }

}  // namespace ds::kernels
