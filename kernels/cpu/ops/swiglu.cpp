#include "kernels/swiglu.h"

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {
namespace {

// An exponential costs about as much as this many element visits.
constexpr std::int64_t kWork = 4;

template <class T>
void forward(CpuContext& context, const SwigluForward& op) {
  using A = acc_t<T>;
  const std::int64_t rows = op.y.rows(), width = op.y.cols();
  const T* gate_up = op.gate_up.as<T>();
  const A* row_weight = op.row_weight ? op.row_weight.as<A>() : nullptr;
  T* y = op.y.as<T>();
  parallel_for(context, threads_for(context, kWork * rows * width), rows, [&](std::int64_t r) {
    const T* gate = gate_up + r * op.gate_up.row_stride();
    const T* up = gate + width;
    T* out = y + r * op.y.row_stride();
    const A weight = row_weight == nullptr ? A(1) : row_weight[r];
#pragma omp simd
    for (std::int64_t i = 0; i < width; ++i) {
      const A g = to_acc(gate[i]);
      out[i] = from_acc<T>(weight * (g * sigmoid(g)) * to_acc(up[i]));
    }
  });
}

// d_gate and d_up may be gate and up: each element is read before it is written. Returns the
// gradient of the row weight.
template <class T>
acc_t<T> backward_row(const T* dy, const T* gate, const T* up, acc_t<T> weight, std::int64_t width,
                      T* d_gate, T* d_up) {
  using A = acc_t<T>;
  A d_weight = 0;
#pragma omp simd reduction(+ : d_weight)
  for (std::int64_t i = 0; i < width; ++i) {
    const A d = to_acc(dy[i]);
    const A g = to_acc(gate[i]);
    const A u = to_acc(up[i]);
    const A s = sigmoid(g);
    const A silu = g * s;
    const A d_value = d * weight;
    d_weight += d * silu * u;
    d_gate[i] = from_acc<T>(d_value * u * (s + silu * (A(1) - s)));
    d_up[i] = from_acc<T>(d_value * silu);
  }
  return d_weight;
}

template <class T>
void backward(CpuContext& context, const SwigluBackward& op) {
  using A = acc_t<T>;
  const std::int64_t rows = op.dy.rows(), width = op.dy.cols();
  const T* dy = op.dy.as<T>();
  const T* gate_up = op.gate_up.as<T>();
  T* d_gate_up = op.d_gate_up.as<T>();
  const A* row_weight = op.row_weight ? op.row_weight.as<A>() : nullptr;
  A* d_row_weight = op.row_weight ? op.d_row_weight.as<A>() : nullptr;
  parallel_for(context, threads_for(context, kWork * rows * width), rows, [&](std::int64_t r) {
    const T* gate = gate_up + r * op.gate_up.row_stride();
    T* d_gate = d_gate_up + r * op.d_gate_up.row_stride();
    const A weight = row_weight == nullptr ? A(1) : row_weight[r];
    const A d_weight = backward_row(dy + r * op.dy.row_stride(), gate, gate + width, weight, width,
                                    d_gate, d_gate + width);
    if (d_row_weight != nullptr) d_row_weight[r] = d_weight;
  });
}

}  // namespace

void run(CpuContext& context, const SwigluForward& op) {
  with_compute_type(op.y.dtype(), [&]<class T>() { forward<T>(context, op); });
}

void run(CpuContext& context, const SwigluBackward& op) {
  with_compute_type(op.dy.dtype(), [&]<class T>() { backward<T>(context, op); });
}

}  // namespace ds::kernels::DSK_ISA
