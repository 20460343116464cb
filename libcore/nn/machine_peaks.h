// What the machine reaches at best.
#pragma once

#include "libcore/tensor/device.h"

namespace ds {

// The best of several runs, so that other work on the machine takes least from it.
struct MachinePeaks {
  double matrix_flops = 0.0;  // per second, what work in `dtype` is judged by: f32_flops or, where
                              // `dtype` is BF16 and that is faster, bf16_flops
  double f32_flops = 0.0;     // a 1536^3 product of f32 matrices on all threads
  double bf16_flops = 0.0;    // the same of bf16 matrices; 0: not measured
  double memory_bytes = 0.0;  // per second, read and written together: 64 MiB copied or added up
  void raise(const MachinePeaks& other);  // the larger of both, each
};
// Measures bf16_flops for BF16 only.
MachinePeaks measure_peaks(Device& device, kernels::DType dtype);
double measure_bf16_peak(Device& device);
// Whether products of two BF16 matrices run in instructions of the CPU; else they are widened to
// f32 first.
bool has_native_bf16(const Device& device);

// FLOP/s of x[rows, in] W[out, in]^T with a weight of `weight` dtype (FP8 with block scales), the
// best of runs for some hundredths of a second.
double product_rate(Device& device, std::int64_t rows, std::int64_t in, std::int64_t out,
                    kernels::DType weight);

}  // namespace ds
