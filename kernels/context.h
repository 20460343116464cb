// Where ops run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace ds::kernels {

// Instruction sets the loops are compiled for; the best one the CPU has is chosen at run time.
enum class Isa : std::uint8_t { kBaseline, kAvx2, kAvx512 };
std::string_view isa_name(Isa isa);
// The best Isa of this CPU (kBaseline when AVX2 + FMA + F16C are missing).
Isa detect_isa();

// The CPU backend: a fixed number of threads, an instruction set, and per-thread scratch memory
// that grows to the largest request and stays (no allocation in the steady state).
// Results depend on the number of threads only where an op's contract says so; the same context
// settings give the same bits.
class CpuContext {
 public:
  // threads >= 1. `isa` above what the CPU has is lowered to it.
  explicit CpuContext(int threads, Isa isa);
  ~CpuContext();
  CpuContext(CpuContext&&) noexcept;
  CpuContext& operator=(CpuContext&&) noexcept;

  int threads() const;
  Isa isa() const;
  // At least `bytes` bytes, 64-byte aligned, private to `thread` in [0, threads()]; index threads()
  // is the slot shared by all. Valid until the next call with the same thread. Throws
  // std::bad_alloc.
  std::byte* scratch(int thread, std::size_t bytes);
  // Bytes held by all scratch buffers.
  std::size_t scratch_bytes() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The CUDA backend. Opaque here; in a build without CUDA the constructor throws std::runtime_error.
class CudaContext {
 public:
  explicit CudaContext(int device);
  ~CudaContext();
  CudaContext(CudaContext&&) noexcept;
  CudaContext& operator=(CudaContext&&) noexcept;
  // Waits for everything enqueued so far.
  void synchronize();

  struct Impl;
  Impl& impl() { return *impl_; }

 private:
  std::unique_ptr<Impl> impl_;
};

// Whether this build has CUDA and a usable device answers.
bool cuda_available();
// Whether this build was compiled with CUDA.
bool cuda_compiled();
// "oneDNN 2.6.3, AVX2" and the like, for --version.
std::string matrix_library_description();

}  // namespace ds::kernels
