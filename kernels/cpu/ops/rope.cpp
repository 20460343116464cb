#include "kernels/rope.h"

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"
#include "kernels/op_check.h"

namespace ds::kernels::DSK_ISA {
namespace {

// kStep is the distance between neighbouring pairs, `apart` that between the two of a pair.
template <class T, int kStep>
void rotate(T* x, std::int64_t apart, std::int64_t pairs, const acc_t<T>* cosine,
            const acc_t<T>* sine, acc_t<T> sign) {
  using A = acc_t<T>;
#pragma omp simd
  for (std::int64_t i = 0; i < pairs; ++i) {
    const A a = to_acc(x[i * kStep]);
    const A b = to_acc(x[i * kStep + apart]);
    const A s = sine[i] * sign;
    x[i * kStep] = from_acc<T>(a * cosine[i] - b * s);
    x[i * kStep + apart] = from_acc<T>(b * cosine[i] + a * s);
  }
}

template <class T>
void rope(CpuContext& context, const Rope& op) {
  using A = acc_t<T>;
  const std::int64_t tokens = op.x.rows(), pairs = op.cos.cols();
  const std::int64_t stride = op.x.row_stride();
  T* x = op.x.as<T>();
  const A* cosines = op.cos.as<A>();
  const A* sines = op.sin.as<A>();
  const auto* positions = op.positions.as<std::int32_t>();
  const A sign = op.inverse ? A(-1) : A(1);
  parallel_for(context, threads_for(context, tokens * op.heads * pairs), tokens,
               [&](std::int64_t t) {
                 const A* cosine = cosines + positions[t] * op.cos.row_stride();
                 const A* sine = sines + positions[t] * op.sin.row_stride();
                 T* head = x + t * stride + op.offset;
                 for (int h = 0; h < op.heads; ++h, head += op.head_stride) {
                   if (op.interleaved) {
                     rotate<T, 2>(head, 1, pairs, cosine, sine, sign);
                   } else {
                     rotate<T, 1>(head, pairs, pairs, cosine, sine, sign);
                   }
                 }
               });
}

}  // namespace

void run(CpuContext& context, const Rope& op) {
  op_check::indices_below(op.kName, "positions", op.positions, op.cos.rows());
  with_compute_type(op.x.dtype(), [&]<class T>() { rope<T>(context, op); });
}

}  // namespace ds::kernels::DSK_ISA
