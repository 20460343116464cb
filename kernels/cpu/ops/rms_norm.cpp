#include "kernels/rms_norm.h"

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {
namespace {

float root(float x) { return __builtin_sqrtf(x); }
double root(double x) { return __builtin_sqrt(x); }

template <class T>
void forward(CpuContext& context, const RmsNormForward& op) {
  using A = acc_t<T>;
  const std::int64_t tokens = op.x.rows(), dim = op.x.cols();
  const std::int64_t x_stride = op.x.row_stride(), y_stride = op.y.row_stride();
  const T* x = op.x.as<T>();
  const A* weight = op.weight.as<A>();
  T* y = op.y.as<T>();
  A* rstd = op.rstd.as<A>();
  const auto eps = static_cast<A>(op.eps);
  parallel_for(context, threads_for(context, tokens * dim), tokens, [&](std::int64_t t) {
    const T* from = x + t * x_stride;
    T* to = y + t * y_stride;
    const A scale = A(1) / root(dot(from, from, dim) / static_cast<A>(dim) + eps);
    rstd[t] = scale;
#pragma omp simd
    for (std::int64_t i = 0; i < dim; ++i) {
      to[i] = from_acc<T>(weight[i] * to_acc(from_acc<T>(to_acc(from[i]) * scale)));
    }
  });
}

template <class T, bool kAdd>
void backward_row(const T* dy, const T* x, const acc_t<T>* weight, acc_t<T> rstd, std::int64_t dim,
                  T* dx) {
  using A = acc_t<T>;
  A lanes[kLanes] = {};  // sum of dy * weight * x
  std::int64_t i = 0;
  for (; i + kLanes <= dim; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      lanes[j] += to_acc(dy[i + j]) * weight[i + j] * to_acc(x[i + j]);
    }
  }
  for (int j = 0; i < dim; ++i, ++j) lanes[j] += to_acc(dy[i]) * weight[i] * to_acc(x[i]);
  const A along = reduce_lanes(lanes) * rstd * rstd * rstd / static_cast<A>(dim);
#pragma omp simd
  for (std::int64_t c = 0; c < dim; ++c) {
    const A value = to_acc(dy[c]) * weight[c] * rstd - to_acc(x[c]) * along;
    dx[c] = from_acc<T>(kAdd ? to_acc(dx[c]) + value : value);
  }
}

// The normalised value is rounded to T before the weight multiplies it; rounding itself passes the
// gradient unchanged.
template <class T>
void add_weight_gradient(const T* __restrict dy, const T* __restrict x, acc_t<T> rstd,
                         std::int64_t dim, acc_t<T>* __restrict sums) {
  for (std::int64_t i = 0; i < dim; ++i) {
    sums[i] += to_acc(dy[i]) * to_acc(from_acc<T>(to_acc(x[i]) * rstd));
  }
}

template <class T>
void backward(CpuContext& context, const RmsNormBackward& op) {
  using A = acc_t<T>;
  const std::int64_t tokens = op.x.rows(), dim = op.x.cols();
  const T* dy = op.dy.as<T>();
  const T* x = op.x.as<T>();
  const A* weight = op.weight.as<A>();
  const A* rstd = op.rstd.as<A>();
  T* dx = op.dx.as<T>();
  const int shares = threads_for(context, tokens * dim);
  const std::int64_t padded = (dim + 15) / 16 * 16;
  // One row of sums a share, all in the shared slot.
  A* sums = nullptr;
  if (op.dweight) {
    const auto bytes = sizeof(A) * static_cast<std::size_t>(padded * shares);
    sums = reinterpret_cast<A*>(context.scratch(context.threads(), bytes));
  }
  // Fewer threads than shares may come; the shares, and so the order of the sums, stay the same.
  parallel_for(context, shares, shares, [&](int share) {
    A* own = sums == nullptr ? nullptr : sums + share * padded;
    if (own != nullptr) {
      for (std::int64_t i = 0; i < dim; ++i) own[i] = A(0);
    }
    for (std::int64_t t = tokens * share / shares; t < tokens * (share + 1) / shares; ++t) {
      const T* dy_row = dy + t * op.dy.row_stride();
      const T* x_row = x + t * op.x.row_stride();
      T* dx_row = dx + t * op.dx.row_stride();
      // Before dx is written: it may share memory with dy.
      if (own != nullptr) add_weight_gradient(dy_row, x_row, rstd[t], dim, own);
      if (op.accumulate_dx) {
        backward_row<T, true>(dy_row, x_row, weight, rstd[t], dim, dx_row);
      } else {
        backward_row<T, false>(dy_row, x_row, weight, rstd[t], dim, dx_row);
      }
    }
  });
  if (sums == nullptr) return;
  A* dweight = op.dweight.as<A>();
  for (int share = 0; share < shares; ++share) {
    const A* own = sums + share * padded;
    for (std::int64_t i = 0; i < dim; ++i) dweight[i] += own[i];
  }
}

}  // namespace

void run(CpuContext& context, const RmsNormForward& op) {
  with_compute_type(op.x.dtype(), [&]<class T>() { forward<T>(context, op); });
}

void run(CpuContext& context, const RmsNormBackward& op) {
  with_compute_type(op.x.dtype(), [&]<class T>() { backward<T>(context, op); });
}

}  // namespace ds::kernels::DSK_ISA
