// Timed ops at the shapes of a model, and what the machine reaches at best. Everything runs on
// memory of its own; no checkpoint is needed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libcore/config/model_config.h"
#include "libcore/tensor/device.h"

namespace ds {

// The best of several runs, so that other work on the machine takes least from it.
struct MachinePeaks {
  double matrix_flops = 0.0;  // per second: a 1536^3 matrix product on all threads, f32 or, where
                              // `dtype` is BF16 and that is faster, bf16
  double copy_bytes = 0.0;    // per second, read and written together: 64 MiB to 64 MiB
  void raise(const MachinePeaks& other);  // the larger of both, each
};
MachinePeaks measure_peaks(Device& device, kernels::DType dtype);

// One op, every repetition in seconds.
struct OpTiming {
  std::string name;  // "gemm q_a_proj forward 2048x256x512", "rms_norm_forward"
  kernels::Cost cost;
  bool matrix = false;  // to be judged by arithmetic (matrix products, attention), else by bytes
  bool cold = false;    // the caches were overwritten before every repetition
  std::vector<double> seconds;
};

struct OpBenchRequest {
  std::int64_t tokens = 2048;  // rows of the products
  std::int64_t seq_len = 512;  // of one sequence; tokens are cut into sequences of this length
  kernels::DType dtype = kernels::DType::kF32;
  int repeats = 7;          // measured, after one that is not
  std::int64_t memory = 0;  // bytes a case may use; larger ones are left out and named
};

// Matrix products: every linear layer once as forward and once as input gradient, the experts as
// the one grouped call that the model makes (tokens spread evenly), a rank-8 adapter's first
// product and weight gradient. Then the main ops. `timed` is called after each case.
struct OpBenchResult {
  std::vector<OpTiming> timings;
  std::vector<std::string> left_out;  // names of cases that need more memory
};
OpBenchResult bench_ops(Device& device, const ModelConfig& config, const OpBenchRequest& request,
                        const std::function<void(const std::string&, double share)>& progress);

}  // namespace ds
