// Timed ops at the shapes of a model, on memory of their own; no checkpoint is needed.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "libcore/config/model_config.h"
#include "libcore/tensor/device.h"

namespace ds {

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
