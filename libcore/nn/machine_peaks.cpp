#include "libcore/nn/machine_peaks.h"

#include <algorithm>
#include <chrono>
#include <cstring>
#include <limits>
#include <thread>
#include <vector>

#include "kernels/elementwise.h"
#include "kernels/gemm.h"
#include "libcore/tensor/tensor.h"

namespace ds {

namespace {

using kernels::Gemm;
using kernels::GemmProblem;

constexpr std::int64_t kPeakSize = 1536;
constexpr std::int64_t kCopyBytes = std::int64_t{64} << 20;
constexpr std::uint16_t kHalfBf16 = 0x3f00;  // 0.5

template <class F>
double seconds_of(F&& f) {
  const auto start = std::chrono::steady_clock::now();
  f();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// The shortest of some runs after one that is not counted: at least three, for `at_least` seconds.
template <class F>
double best_seconds(F&& run, double at_least = 0.25) {
  run();
  double best = std::numeric_limits<double>::infinity();
  double spent = 0.0;
  for (int i = 0; i < 3 || spent < at_least; ++i) {
    const double seconds = seconds_of(run);
    best = std::min(best, seconds);
    spent += seconds;
  }
  return best;
}

double matrix_peak(Device& device, DType dtype) {
  Tensor a(dtype, {kPeakSize, kPeakSize});
  Tensor b(dtype, {kPeakSize, kPeakSize});
  Tensor c(dtype, {kPeakSize, kPeakSize});
  for (Tensor* operand : {&a, &b}) {
    if (dtype == DType::kF32) {
      std::fill_n(operand->as<float>(), operand->size(), 0.5f);
    } else {
      std::fill_n(static_cast<std::uint16_t*>(operand->data()), operand->size(), kHalfBf16);
    }
  }
  const GemmProblem problem{.a = a.view(), .b = b.view(), .c = c.view(), .trans_b = true};
  const Gemm op{{&problem, 1}};
  return cost(op).flops / best_seconds([&] { device.run(op); });
}

// The better of the C library's copy on disjoint parts (starting a thread is short beside it) and
// y += x, which writes only lines it has read: a copy may read what it overwrites without saying.
double memory_peak(Device& device) {
  const int threads = device.threads();
  Tensor from(DType::kF32, {kCopyBytes / 4});
  Tensor to(DType::kF32, {kCopyBytes / 4});
  const auto part = static_cast<std::size_t>(kCopyBytes / threads);
  const auto copy = [&](int thread) {
    const std::size_t begin = part * static_cast<std::size_t>(thread);
    std::memcpy(static_cast<std::byte*>(to.data()) + begin,
                static_cast<const std::byte*>(from.data()) + begin, part);
  };
  const double copy_seconds = best_seconds([&] {
    std::vector<std::thread> others;
    for (int thread = 1; thread < threads; ++thread) others.emplace_back(copy, thread);
    copy(0);
    for (std::thread& other : others) other.join();
  });
  constexpr std::int64_t kCols = 4096;
  const kernels::AddScaled update{.x = from.view().reshape({kCopyBytes / 4 / kCols, kCols}),
                                  .y = to.view().reshape({kCopyBytes / 4 / kCols, kCols})};
  const double update_seconds = best_seconds([&] { device.run(update); });
  return std::max(2.0 * static_cast<double>(part) * threads / copy_seconds,
                  cost(update).bytes / update_seconds);
}

}  // namespace

void MachinePeaks::raise(const MachinePeaks& other) {
  matrix_flops = std::max(matrix_flops, other.matrix_flops);
  f32_flops = std::max(f32_flops, other.f32_flops);
  bf16_flops = std::max(bf16_flops, other.bf16_flops);
  memory_bytes = std::max(memory_bytes, other.memory_bytes);
}

MachinePeaks measure_peaks(Device& device, DType dtype) {
  MachinePeaks peaks;
  peaks.f32_flops = matrix_peak(device, DType::kF32);
  if (dtype == DType::kBF16) peaks.bf16_flops = matrix_peak(device, DType::kBF16);
  peaks.matrix_flops = std::max(peaks.f32_flops, peaks.bf16_flops);
  peaks.memory_bytes = memory_peak(device);
  return peaks;
}

double measure_bf16_peak(Device& device) { return matrix_peak(device, DType::kBF16); }

bool has_native_bf16(const Device& device) { return device.isa() == kernels::Isa::kAvx512Bf16; }

double product_rate(Device& device, std::int64_t rows, std::int64_t in, std::int64_t out,
                    DType weight) {
  Tensor x(DType::kF32, {rows, in});
  Tensor w(weight, {out, in});
  Tensor y(DType::kF32, {rows, out});
  std::fill_n(x.as<float>(), x.size(), 0.5f);
  // Bytes that are an ordinary number in every dtype.
  std::memset(w.data(), 0x3c, static_cast<std::size_t>(w.bytes()));
  Tensor scale;
  GemmProblem problem{.a = x.view(), .b = w.view(), .c = y.view(), .trans_b = true};
  if (weight == DType::kF8E4M3) {
    scale = Tensor(DType::kF32, {(out + 127) / 128, (in + 127) / 128});
    std::fill_n(scale.as<float>(), scale.size(), 1.0f);
    problem.b_scale = scale.view();
  }
  const Gemm op{{&problem, 1}};
  constexpr double kSeconds = 0.01;
  return cost(op).flops / best_seconds([&] { device.run(op); }, kSeconds);
}

}  // namespace ds
