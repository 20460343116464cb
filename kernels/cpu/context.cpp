#include "kernels/context.h"

#include <cpuid.h>
#include <dnnl.h>

#include <cstdint>
#include <memory>
#include <new>
#include <stdexcept>
#include <vector>

#include "kernels/cpu/thread_team.h"

namespace ds::kernels {
namespace {

constexpr std::size_t kAlignment = 64;

// One scratch buffer, on cache lines of its own: threads grow theirs at the same time.
struct alignas(kAlignment) Slot {
  std::byte* data = nullptr;
  std::size_t size = 0;

  Slot() = default;
  Slot(const Slot&) = delete;
  Slot& operator=(const Slot&) = delete;
  ~Slot() { release(); }
  void release() {
    if (data != nullptr) ::operator delete(data, std::align_val_t(kAlignment));
    data = nullptr;
    size = 0;
  }
};

std::string_view dnnl_isa_name(dnnl_cpu_isa_t isa) {
  switch (isa) {
    case dnnl_cpu_isa_sse41:
      return "SSE4.1";
    case dnnl_cpu_isa_avx:
      return "AVX";
    case dnnl_cpu_isa_avx2:
      return "AVX2";
    case dnnl_cpu_isa_avx2_vnni:
      return "AVX2-VNNI";
    case dnnl_cpu_isa_avx512_mic:
    case dnnl_cpu_isa_avx512_mic_4ops:
    case dnnl_cpu_isa_avx512_core:
      return "AVX-512";
    case dnnl_cpu_isa_avx512_core_vnni:
      return "AVX-512 VNNI";
    case dnnl_cpu_isa_avx512_core_bf16:
      return "AVX-512 BF16";
    case dnnl_cpu_isa_avx512_core_amx:
      return "AMX";
    default:
      return "generic";
  }
}

}  // namespace

struct CpuContext::Impl {
  Impl(int thread_count, Isa instruction_set)
      : threads(thread_count),
        isa(instruction_set),
        slots(static_cast<std::size_t>(thread_count) + 1),
        team(thread_count) {}
  int threads;
  Isa isa;
  std::vector<Slot> slots;
  std::shared_ptr<void> plan_memory;
  cpu::ThreadTeam team;
};

CpuContext::CpuContext(int threads, Isa isa) {
  if (threads < 1) {
    throw std::invalid_argument("cpu context: " + std::to_string(threads) +
                                " threads, need at least 1");
  }
  const Isa best = detect_isa();
  impl_ = std::make_unique<Impl>(threads, isa < best ? isa : best);
}
CpuContext::~CpuContext() = default;
CpuContext::CpuContext(CpuContext&&) noexcept = default;
CpuContext& CpuContext::operator=(CpuContext&&) noexcept = default;

int CpuContext::threads() const { return impl_->threads; }
Isa CpuContext::isa() const { return impl_->isa; }

std::byte* CpuContext::scratch(int thread, std::size_t bytes) {
  if (thread < 0 || thread > impl_->threads) {
    throw std::invalid_argument("cpu context: no scratch slot " + std::to_string(thread));
  }
  if (bytes > static_cast<std::size_t>(PTRDIFF_MAX)) throw std::bad_alloc();
  Slot& slot = impl_->slots[static_cast<std::size_t>(thread)];
  if (slot.data == nullptr || slot.size < bytes) {
    const std::size_t wanted = bytes < kAlignment ? kAlignment : bytes;
    slot.release();  // first, so that a large buffer is not held twice
    slot.data = static_cast<std::byte*>(::operator new(wanted, std::align_val_t(kAlignment)));
    slot.size = wanted;
  }
  return slot.data;
}

void CpuContext::run_team(int team, void (*body)(void*, int), void* argument) {
  impl_->team.run(team, body, argument);
}

std::shared_ptr<void>& CpuContext::plan_memory() { return impl_->plan_memory; }

std::size_t CpuContext::scratch_bytes() const {
  std::size_t bytes = 0;
  for (const Slot& slot : impl_->slots) bytes += slot.size;
  return bytes;
}

std::string_view isa_name(Isa isa) {
  switch (isa) {
    case Isa::kAvx512Bf16:
      return "AVX-512 BF16";
    case Isa::kAvx512:
      return "AVX-512";
    case Isa::kAvx2:
      return "AVX2";
    case Isa::kBaseline:
      break;
  }
  return "baseline";
}

// The three that clang 14's builtin does not know.
static bool has_f16c_movbe_lzcnt() {
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return false;
  constexpr unsigned kF16c = 1u << 29, kMovbe = 1u << 22, kLzcnt = 1u << 5;
  if ((c & kF16c) == 0 || (c & kMovbe) == 0) return false;
  return __get_cpuid(0x80000001u, &a, &b, &c, &d) != 0 && (c & kLzcnt) != 0;
}

// Each condition names what kernels/CMakeLists.txt compiles the ops with. The builtin also asks
// whether the operating system saves the wide registers.
Isa detect_isa() {
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                    __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2") &&
                    __builtin_cpu_supports("popcnt") && has_f16c_movbe_lzcnt();
  if (!avx2) return Isa::kBaseline;
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512vl");
  if (!avx512) return Isa::kAvx2;
  // The matrix library must agree: without the instructions it would emulate them.
  const bool bf16 = __builtin_cpu_supports("avx512bf16") &&
                    dnnl_get_effective_cpu_isa() >= dnnl_cpu_isa_avx512_core_bf16;
  return bf16 ? Isa::kAvx512Bf16 : Isa::kAvx512;
}

std::string matrix_library_description() {
  const dnnl_version_t* version = dnnl_version();
  return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
         std::to_string(version->patch) + ", " +
         std::string(dnnl_isa_name(dnnl_get_effective_cpu_isa()));
}

}  // namespace ds::kernels
