#include "kernels/cast.h"

#include "kernels/cpu/isa_ops.h"
#include "kernels/cpu/ops/block_scale.h"
#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {
namespace {

// f64 to a type narrower than f32 without rounding twice: f32 rounded to odd keeps what the second
// rounding needs to know (a result off the halfway points, on the right side of them).
float round_to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  const auto back = static_cast<double>(nearest);
  if (back == value || !(value - value == 0.0)) return nearest;
  auto bits = __builtin_bit_cast(std::uint32_t, nearest);
  if ((bits & 1u) != 0) return nearest;
  // An even neighbour was chosen: take the odd one on the other side of the value.
  const bool away = value > 0.0 ? back < value : back > value;
  bits = away ? bits + 1u : bits - 1u;
  return __builtin_bit_cast(float, bits);
}

template <class D>
struct Convert {
  static D from(float value) { return from_acc<D>(value); }
  static D from(double value) { return from_acc<D>(round_to_odd(value)); }
};
template <>
struct Convert<float> {
  static float from(float value) { return value; }
  static float from(double value) { return static_cast<float>(value); }
};
template <>
struct Convert<double> {
  static double from(float value) { return value; }
  static double from(double value) { return value; }
};

template <class S, class D>
void cast_row(const S* __restrict src, std::int64_t n, D* __restrict dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = Convert<D>::from(to_acc(src[i]));
}

template <class D>
void cast_row_scaled(const Cast& op, std::int64_t row, D* __restrict dst) {
  const fp8_e4m3* src = op.src.as<fp8_e4m3>() + row * op.src.row_stride();
  const std::int64_t cols = op.src.cols();
  for (std::int64_t begin = 0; begin < cols; begin += kScaleBlock) {
    const std::int64_t end = begin + kScaleBlock < cols ? begin + kScaleBlock : cols;
    const float scale = block_scale(op.scale, row / kScaleBlock, begin / kScaleBlock);
    for (std::int64_t i = begin; i < end; ++i) dst[i] = Convert<D>::from(to_acc(src[i]) * scale);
  }
}

template <class S, class D>
void cast(CpuContext& context, const Cast& op) {
  const std::int64_t rows = op.src.rows(), cols = op.src.cols();
  if (rows == 0 || cols == 0) return;
  const S* src = op.src.as<S>();
  D* dst = op.dst.as<D>();
  // One long row (a vector) is split by columns instead.
  constexpr std::int64_t kPiece = 16384;
  const std::int64_t pieces = op.scale ? 1 : (cols + kPiece - 1) / kPiece;
  parallel_for(context, rows * cols > kPiece ? context.threads() : 1, rows * pieces,
               [&](std::int64_t i) {
                 const std::int64_t row = i / pieces;
                 const std::int64_t begin = i % pieces * kPiece;
                 D* out = dst + row * op.dst.row_stride();
                 if constexpr (dtype_of_v<S> == DType::kF8E4M3) {
                   if (op.scale) {
                     cast_row_scaled(op, row, out);
                     return;
                   }
                 }
                 const std::int64_t n = begin + kPiece < cols ? kPiece : cols - begin;
                 cast_row(src + row * op.src.row_stride() + begin, n, out + begin);
               });
}

template <class S>
void cast_from(CpuContext& context, const Cast& op) {
  switch (op.dst.dtype()) {
    case DType::kF32:
      return cast<S, float>(context, op);
    case DType::kF64:
      return cast<S, double>(context, op);
    case DType::kBF16:
      return cast<S, bf16>(context, op);
    case DType::kF16:
      return cast<S, f16>(context, op);
    default:
      return cast<S, fp8_e4m3>(context, op);
  }
}

}  // namespace

void run(CpuContext& context, const Cast& op) {
  switch (op.src.dtype()) {
    case DType::kF32:
      return cast_from<float>(context, op);
    case DType::kF64:
      return cast_from<double>(context, op);
    case DType::kBF16:
      return cast_from<bf16>(context, op);
    case DType::kF16:
      return cast_from<f16>(context, op);
    default:
      return cast_from<fp8_e4m3>(context, op);
  }
}

}  // namespace ds::kernels::DSK_ISA
