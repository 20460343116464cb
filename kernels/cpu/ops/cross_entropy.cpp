#include "kernels/cross_entropy.h"

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"
#include "kernels/op_check.h"

namespace ds::kernels::DSK_ISA {
namespace {

constexpr std::int64_t kWork = 4;  // an exponential costs about this many element visits

template <class A>
A exp_sum(const A* x, std::int64_t n, A shift) {
  A lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += exp_approx(x[i + j] - shift);
  }
  A tail = 0;
  for (; i < n; ++i) tail += exp_approx(x[i] - shift);
  return reduce_lanes(lanes) + tail;
}

// Largest element of a row and log of the sum of exp(x - largest), in one pass over memory: the
// blocks fit the first cache, so that their second reading is free.
template <class A>
void log_sum_exp(const A* x, std::int64_t n, A& largest, double& log_sum) {
  constexpr std::int64_t kBlock = 2048;
  double sum = 0.0;
  A top = -__builtin_huge_val();
  for (std::int64_t begin = 0; begin < n; begin += kBlock) {
    const std::int64_t size = least(kBlock, n - begin);
    const A before = top;
    top = max_value(x + begin, size, before);
    if (top > before) sum *= __builtin_exp(static_cast<double>(before) - static_cast<double>(top));
    sum += static_cast<double>(exp_sum(x + begin, size, top));
  }
  largest = top;
  log_sum = __builtin_log(sum);
}

template <class A>
void forward(CpuContext& context, const CrossEntropyForward& op) {
  const std::int64_t rows = op.logits.rows(), vocab = op.logits.cols();
  const A* logits = op.logits.as<A>();
  const auto* targets = op.targets.as<std::int32_t>();
  A* loss = op.loss.as<A>();
  A* lse = op.lse.as<A>();
  parallel_for(context, threads_for(context, kWork * rows * vocab), rows, [&](std::int64_t r) {
    const A* row = logits + r * op.logits.row_stride();
    A largest = 0;
    double log_sum = 0.0;
    log_sum_exp(row, vocab, largest, log_sum);
    lse[r] = static_cast<A>(static_cast<double>(largest) + log_sum);
    // The difference first: a large common offset of the logits costs no accuracy.
    const double below = static_cast<double>(largest) - static_cast<double>(row[targets[r]]);
    loss[r] = static_cast<A>(below + log_sum);
  });
}

// T is A, or BF16 for sums in F32: the target's element is rounded once, like the others.
template <class A, class T>
void backward(CpuContext& context, const CrossEntropyBackward& op) {
  const std::int64_t rows = op.logits.rows(), vocab = op.logits.cols();
  const A* logits = op.logits.as<A>();
  const auto* targets = op.targets.as<std::int32_t>();
  const A* lse = op.lse.as<A>();
  T* d_logits = op.d_logits.as<T>();
  const auto scale = static_cast<A>(op.scale);
  parallel_for(context, threads_for(context, kWork * rows * vocab), rows, [&](std::int64_t r) {
    const A* from = logits + r * op.logits.row_stride();
    T* to = d_logits + r * op.d_logits.row_stride();
    // Copies: a captured A could be one of the elements that are written, and its reloads would
    // keep the loop from being vectorised.
    const A shift = lse[r], factor = scale;
    const A at_target = exp_approx(from[targets[r]] - shift) * factor - factor;
#pragma omp simd
    for (std::int64_t i = 0; i < vocab; ++i) {
      to[i] = from_acc<T>(exp_approx(from[i] - shift) * factor);
    }
    to[targets[r]] = from_acc<T>(at_target);
  });
}

}  // namespace

void run(CpuContext& context, const CrossEntropyForward& op) {
  op_check::indices_below(op.kName, "targets", op.targets, op.logits.cols());
  if (op.logits.dtype() == DType::kF64) return forward<double>(context, op);
  forward<float>(context, op);
}

void run(CpuContext& context, const CrossEntropyBackward& op) {
  op_check::indices_below(op.kName, "targets", op.targets, op.logits.cols());
  if (op.logits.dtype() == DType::kF64) return backward<double, double>(context, op);
  if (op.d_logits.dtype() == DType::kBF16) return backward<float, bf16>(context, op);
  backward<float, float>(context, op);
}

}  // namespace ds::kernels::DSK_ISA
