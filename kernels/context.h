// Where ops run.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

namespace ds::kernels {

// Instruction sets the loops are compiled for; the best one the CPU has is chosen at run time.
// kAvx512Bf16 is kAvx512 whose products of two BF16 matrices run in BF16 instructions (AVX512_BF16,
// or AMX where the matrix library knows it): exact products, sums in f32, twice the rate of f32.
enum class Isa : std::uint8_t { kBaseline, kAvx2, kAvx512, kAvx512Bf16 };
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
  // Calls body(argument, me) for every me in [0, team) at the same time; returns when all have.
  // 1 <= team <= threads(). For the ops: bodies neither throw nor call this.
  void run_team(int team, void (*body)(void*, int), void* argument);
  // Bytes held by all scratch buffers.
  std::size_t scratch_bytes() const;
  // What the op at work keeps for its next call, so that planning a product takes no memory in the
  // steady state. Empty until the op fills it.
  std::shared_ptr<void>& plan_memory();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The CUDA backend: one device, one stream, on which ops are enqueued in order; views hold device
// memory. Opaque here; without CUDA in the build, or without a device, the constructor throws
// std::runtime_error.
class CudaContext {
 public:
  explicit CudaContext(int device);
  ~CudaContext();
  CudaContext(CudaContext&&) noexcept;
  CudaContext& operator=(CudaContext&&) noexcept;
  // Waits for everything enqueued so far. Throws std::runtime_error when some of it failed.
  void synchronize();

  // Device memory, 256-byte aligned; throws std::bad_alloc. The caller gives it back to the same
  // context.
  void* allocate(std::size_t bytes);
  void release(void* memory) noexcept;
  // Copies between host and device memory, finished on return.
  void copy_to_device(void* device, const void* host, std::size_t bytes);
  void copy_to_host(void* host, const void* device, std::size_t bytes);

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
