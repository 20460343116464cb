// What the machine reaches at best.
#pragma once

#include "libcore/tensor/device.h"

namespace ds {

// The best of several runs, so that other work on the machine takes least from it.
struct MachinePeaks {
  double matrix_flops = 0.0;  // per second: a 1536^3 matrix product on all threads, f32 or, where
                              // `dtype` is BF16 and that is faster, bf16
  double memory_bytes = 0.0;  // per second, read and written together: 64 MiB copied or added up
  void raise(const MachinePeaks& other);  // the larger of both, each
};
MachinePeaks measure_peaks(Device& device, kernels::DType dtype);

// FLOP/s of x[rows, in] W[out, in]^T with a weight of `weight` dtype (FP8 with block scales), the
// best of runs for some hundredths of a second.
double product_rate(Device& device, std::int64_t rows, std::int64_t in, std::int64_t out,
                    kernels::DType weight);

}  // namespace ds
