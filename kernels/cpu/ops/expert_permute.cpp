#include "kernels/expert_permute.h"

#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"
#include "kernels/op_check.h"

namespace ds::kernels::DSK_ISA {
namespace {

template <class T>
void gather(CpuContext& context, const GatherRows& op) {
  const std::int64_t rows = op.y.rows(), dim = op.y.cols();
  const T* x = op.x.as<T>();
  const auto* index = op.index.as<std::int32_t>();
  T* y = op.y.as<T>();
  parallel_for(context, threads_for(context, rows * dim), rows, [&](std::int64_t r) {
    __builtin_memcpy(y + r * op.y.row_stride(), x + index[r] * op.x.row_stride(),
                     static_cast<std::size_t>(dim) * sizeof(T));
  });
}

// One token, kColumns columns from `begin`: the sums of a few columns at a time stay in registers.
template <class X, class Y, int kColumns>
void combine_columns(const CombineRows& op, const X* x, const std::int32_t* index,
                     std::int64_t begin, Y* y) {
  using A = acc_t<X>;
  const std::int64_t k = op.index.cols(), stride = op.x.row_stride();
  A sums[kColumns] = {};
  for (std::int64_t j = 0; j < k; ++j) {
    const X* from = x + index[j] * stride + begin;
    for (int i = 0; i < kColumns; ++i) sums[i] += to_acc(from[i]);
  }
  Y* to = y + begin;
  if (op.accumulate) {
    for (int i = 0; i < kColumns; ++i) to[i] = from_acc<Y>(to_acc(to[i]) + sums[i]);
  } else {
    for (int i = 0; i < kColumns; ++i) to[i] = from_acc<Y>(sums[i]);
  }
}

template <class X, class Y>
void combine_row(const CombineRows& op, const X* x, const std::int32_t* index, Y* y) {
  constexpr int kColumns = 64;
  const std::int64_t dim = op.y.cols();
  std::int64_t i = 0;
  for (; i + kColumns <= dim; i += kColumns) combine_columns<X, Y, kColumns>(op, x, index, i, y);
  for (; i + 8 <= dim; i += 8) combine_columns<X, Y, 8>(op, x, index, i, y);
  for (; i < dim; ++i) combine_columns<X, Y, 1>(op, x, index, i, y);
}

template <class X, class Y>
void combine(CpuContext& context, const CombineRows& op) {
  const std::int64_t tokens = op.y.rows();
  const X* x = op.x.as<X>();
  const auto* index = op.index.as<std::int32_t>();
  Y* y = op.y.as<Y>();
  const std::int64_t work = op.index.size() * op.y.cols();
  parallel_for(context, threads_for(context, work), tokens, [&](std::int64_t t) {
    combine_row(op, x, index + t * op.index.row_stride(), y + t * op.y.row_stride());
  });
}

}  // namespace

// Serial: two passes over a few integers per token.
void run(CpuContext& context, const ExpertPlan& op) {
  const std::int64_t count = op.offsets.size() - 1;
  op_check::indices_below(op.kName, "experts", op.experts, count);
  const std::int64_t tokens = op.experts.rows(), top_k = op.experts.cols();
  const auto* experts = op.experts.as<std::int32_t>();
  auto* offsets = op.offsets.as<std::int32_t>();
  auto* slot_token = op.slot_token.as<std::int32_t>();
  auto* slot_entry = op.slot_entry.as<std::int32_t>();
  auto* entry_slot = op.entry_slot.as<std::int32_t>();
  const auto bytes = static_cast<std::size_t>(count) * sizeof(std::int32_t);
  auto* next = reinterpret_cast<std::int32_t*>(context.scratch(0, bytes));
  for (std::int64_t e = 0; e <= count; ++e) offsets[e] = 0;
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int32_t* chosen = experts + t * op.experts.row_stride();
    for (std::int64_t j = 0; j < top_k; ++j) ++offsets[chosen[j] + 1];
  }
  for (std::int64_t e = 0; e < count; ++e) {
    next[e] = offsets[e];
    offsets[e + 1] += offsets[e];
  }
  for (std::int64_t t = 0; t < tokens; ++t) {
    const std::int32_t* chosen = experts + t * op.experts.row_stride();
    for (std::int64_t j = 0; j < top_k; ++j) {
      const std::int32_t slot = next[chosen[j]]++;
      slot_token[slot] = static_cast<std::int32_t>(t);
      slot_entry[slot] = static_cast<std::int32_t>(t * top_k + j);
      entry_slot[t * op.entry_slot.row_stride() + j] = slot;
    }
  }
}

void run(CpuContext& context, const GatherRows& op) {
  op_check::indices_below(op.kName, "index", op.index, op.x.rows());
  with_compute_type(op.x.dtype(), [&]<class T>() { gather<T>(context, op); });
}

void run(CpuContext& context, const CombineRows& op) {
  op_check::indices_below(op.kName, "index", op.index, op.x.rows());
  const bool wide_x = op.x.dtype() == DType::kF32, wide_y = op.y.dtype() == DType::kF32;
  if (op.x.dtype() == DType::kF64) return combine<double, double>(context, op);
  if (wide_x && wide_y) return combine<float, float>(context, op);
  if (wide_x) return combine<float, bf16>(context, op);
  if (wide_y) return combine<bf16, float>(context, op);
  combine<bf16, bf16>(context, op);
}

}  // namespace ds::kernels::DSK_ISA
