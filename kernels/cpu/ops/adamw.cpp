// Compiled without contraction of a * b + c (kernels/CMakeLists.txt), so that every instruction set
// rounds as torch's code does: fused in the first moment, nowhere else.
#include "kernels/adamw.h"

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {
namespace {

constexpr std::int64_t kBlock = 8192;

float root(float x) { return __builtin_sqrtf(x); }
double root(double x) { return __builtin_sqrt(x); }
float fused(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
double fused(double a, double b, double c) { return __builtin_fma(a, b, c); }

// The scalars of one item, formed in f64 and rounded once as torch does.
template <class A>
struct Factors {
  A grad_scale, decay, rest1, beta2, rest2, root2, eps, minus_step;
};

template <class A>
Factors<A> factors(const AdamW& op, const AdamWItem& item) {
  const auto step = static_cast<double>(item.step);
  const double correction1 = 1.0 - __builtin_pow(op.beta1, step);
  const double correction2 = 1.0 - __builtin_pow(op.beta2, step);
  return {static_cast<A>(op.grad_scale),  static_cast<A>(1.0 - item.lr * item.weight_decay),
          static_cast<A>(1.0 - op.beta1), static_cast<A>(op.beta2),
          static_cast<A>(1.0 - op.beta2), static_cast<A>(__builtin_sqrt(correction2)),
          static_cast<A>(op.eps),         static_cast<A>(-(item.lr / correction1))};
}

template <class A>
void update(const Factors<A>& f, const A* __restrict grad, std::int64_t n, A* __restrict param,
            A* __restrict exp_avg, A* __restrict exp_avg_sq) {
  for (std::int64_t i = 0; i < n; ++i) {
    const A g = grad[i] * f.grad_scale;
    const A p = param[i] * f.decay;  // decay is 1 without weight decay
    const A m = fused(f.rest1, g - exp_avg[i], exp_avg[i]);
    const A v = exp_avg_sq[i] * f.beta2 + f.rest2 * g * g;
    const A denominator = root(v) / f.root2 + f.eps;
    exp_avg[i] = m;
    exp_avg_sq[i] = v;
    param[i] = p + f.minus_step * m / denominator;
  }
}

template <class A>
void update_range(const AdamW& op, const AdamWItem& item, std::int64_t begin, std::int64_t end) {
  update(factors<A>(op, item), item.grad.as<A>() + begin, end - begin, item.param.as<A>() + begin,
         item.exp_avg.as<A>() + begin, item.exp_avg_sq.as<A>() + begin);
}

std::int64_t blocks_of(const AdamWItem& item) { return (item.param.size() + kBlock - 1) / kBlock; }

}  // namespace

// The blocks of all items are numbered through and each thread takes a run of numbers.
void run(CpuContext& context, const AdamW& op) {
  const AdamWItem* items = op.items.data();
  const std::size_t count = op.items.size();
  std::int64_t blocks = 0, elements = 0;
  for (std::size_t i = 0; i < count; ++i) {
    blocks += blocks_of(items[i]);
    elements += items[i].param.size();
  }
  parallel(context, threads_for(context, elements), [&](int me, int team) {
    const std::int64_t first = blocks * me / team, last = blocks * (me + 1) / team;
    std::int64_t before = 0;  // number of the item's first block
    for (std::size_t i = 0; i < count && before < last; ++i) {
      const AdamWItem& item = items[i];
      const std::int64_t own = blocks_of(item);
      const std::int64_t from = first > before ? first - before : 0;
      const std::int64_t to = least(own, last - before);
      if (from < to) {
        const std::int64_t end = least(to * kBlock, item.param.size());
        if (item.param.dtype() == DType::kF64) {
          update_range<double>(op, item, from * kBlock, end);
        } else {
          update_range<float>(op, item, from * kBlock, end);
        }
      }
      before += own;
    }
  });
}

}  // namespace ds::kernels::DSK_ISA
