#include "kernels/cast.h"

#include "kernels/cpu/isa_ops.h"
#include "kernels/cpu/ops/block_scale.h"
#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

#ifdef __AVX512BW__
#include <immintrin.h>
#endif

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

#ifdef __AVX512BW__
// Codes of one block in BF16 or F16: a block has one scale, and so no more than 128 magnitudes. The
// sign of a product is that of the code times that of the scale, NaN codes included.
template <class D>
class ScaledCodes {
 public:
  explicit ScaledCodes(float scale) {
    D products[128];
    for (int i = 0; i < 128; ++i) {
      fp8_e4m3 code;
      code.bits = static_cast<std::uint8_t>(i);
      products[i] = Convert<D>::from(to_acc(code) * scale);
    }
    for (int i = 0; i < 4; ++i) table_[i] = _mm512_loadu_si512(products + 32 * i);
  }
  void row(const fp8_e4m3* src, std::int64_t n, D* dst) const {
    std::int64_t i = 0;
    for (; i + 32 <= n; i += 32) {
      const __m256i codes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(src + i));
      _mm512_storeu_si512(dst + i, products(codes));
    }
    if (i == n) return;
    const __mmask32 rest = (1u << (n - i)) - 1u;
    _mm512_mask_storeu_epi16(dst + i, rest, products(_mm256_maskz_loadu_epi8(rest, src + i)));
  }

 private:
  // A look-up takes the low six bits of a number and ignores the others.
  __m512i products(__m256i codes) const {
    const __m512i wide = _mm512_cvtepu8_epi16(codes);
    const __m512i low = _mm512_permutex2var_epi16(table_[0], wide, table_[1]);
    const __m512i high = _mm512_permutex2var_epi16(table_[2], wide, table_[3]);
    const __mmask32 is_high = _mm512_test_epi16_mask(wide, _mm512_set1_epi16(0x40));
    const __m512i sign = _mm512_slli_epi16(_mm512_srli_epi16(wide, 7), 15);
    return _mm512_xor_si512(_mm512_mask_blend_epi16(is_high, low, high), sign);
  }
  __m512i table_[4];
};

// False for scales that are NaN, whose sign is another matter.
template <class D>
bool cast_by_table(CpuContext& context, const Cast& op) {
  const std::int64_t rows = op.src.rows(), cols = op.src.cols();
  const std::int64_t across = (cols + kScaleBlock - 1) / kScaleBlock;
  const std::int64_t blocks = (rows + kScaleBlock - 1) / kScaleBlock * across;
  for (std::int64_t i = 0; i < blocks; ++i) {
    const float scale = block_scale(op.scale, i / across, i % across);
    if (!(scale == scale)) return false;
  }
  parallel_for(context, threads_for(context, rows * cols), blocks, [&](std::int64_t block) {
    const std::int64_t row = block / across * kScaleBlock, col = block % across * kScaleBlock;
    const std::int64_t last = least(rows, row + kScaleBlock);
    const ScaledCodes<D> codes(block_scale(op.scale, block / across, block % across));
    for (std::int64_t r = row; r < last; ++r) {
      codes.row(op.src.as<fp8_e4m3>() + r * op.src.row_stride() + col,
                least(kScaleBlock, cols - col), op.dst.as<D>() + r * op.dst.row_stride() + col);
    }
  });
  return true;
}
#endif

template <class S, class D>
void cast(CpuContext& context, const Cast& op) {
  const std::int64_t rows = op.src.rows(), cols = op.src.cols();
  if (rows == 0 || cols == 0) return;
#ifdef __AVX512BW__
  if constexpr (dtype_of_v<S> == DType::kF8E4M3 &&
                (dtype_of_v<D> == DType::kBF16 || dtype_of_v<D> == DType::kF16)) {
    // A table costs as much as a row of its block.
    if (op.scale && rows >= 8 && cast_by_table<D>(context, op)) return;
  }
#endif
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
