#include "kernels/embedding.h"

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"
#include "kernels/op_check.h"

namespace ds::kernels::DSK_ISA {
namespace {

template <class S, class T>
void forward(CpuContext& context, const EmbeddingForward& op) {
  const std::int64_t tokens = op.y.rows(), dim = op.y.cols();
  const S* table = op.table.as<S>();
  const auto* ids = op.ids.as<std::int32_t>();
  T* y = op.y.as<T>();
  parallel_for(context, threads_for(context, tokens * dim), tokens, [&](std::int64_t t) {
    const S* from = table + ids[t] * op.table.row_stride();
    T* to = y + t * op.y.row_stride();
#pragma omp simd
    for (std::int64_t i = 0; i < dim; ++i) {
      to[i] = from_acc<T>(static_cast<acc_t<T>>(to_acc(from[i])));
    }
  });
}

template <class S>
void forward_from(CpuContext& context, const EmbeddingForward& op) {
  with_compute_type(op.y.dtype(), [&]<class T>() { forward<S, T>(context, op); });
}

// Each thread owns a range of columns and walks all tokens in order.
template <class T>
void backward(CpuContext& context, const EmbeddingBackward& op) {
  using A = acc_t<T>;
  constexpr std::int64_t kColumns = 16;  // a cache line of f32: threads do not share lines
  const std::int64_t tokens = op.dy.rows(), dim = op.dy.cols();
  const T* dy = op.dy.as<T>();
  const auto* ids = op.ids.as<std::int32_t>();
  A* d_table = op.d_table.as<A>();
  const std::int64_t groups = (dim + kColumns - 1) / kColumns;
  parallel(context, threads_for(context, tokens * dim), [&](int me, int team) {
    const std::int64_t begin = groups * me / team * kColumns;
    const std::int64_t end = least(groups * (me + 1) / team * kColumns, dim);
    for (std::int64_t t = 0; t < tokens; ++t) {
      const T* __restrict from = dy + t * op.dy.row_stride();
      A* __restrict to = d_table + ids[t] * op.d_table.row_stride();
      for (std::int64_t i = begin; i < end; ++i) to[i] += to_acc(from[i]);
    }
  });
}

}  // namespace

void run(CpuContext& context, const EmbeddingForward& op) {
  op_check::indices_below(op.kName, "ids", op.ids, op.table.rows());
  switch (op.table.dtype()) {
    case DType::kF32:
      return forward_from<float>(context, op);
    case DType::kF64:
      return forward_from<double>(context, op);
    case DType::kBF16:
      return forward_from<bf16>(context, op);
    default:
      return forward_from<f16>(context, op);
  }
}

void run(CpuContext& context, const EmbeddingBackward& op) {
  op_check::indices_below(op.kName, "ids", op.ids, op.d_table.rows());
  with_compute_type(op.dy.dtype(), [&]<class T>() { backward<T>(context, op); });
}

}  // namespace ds::kernels::DSK_ISA
