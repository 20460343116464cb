#include "kernels/block_quantise.h"

#include "kernels/cpu/isa_ops.h"
#include "kernels/cpu/ops/block_scale.h"
#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {
namespace {

constexpr std::int32_t kInfinity = 0x7f800000;

// Bits of the largest magnitude as an f32: as integers they are in the order of the values, NaN
// last.
std::int32_t largest(const float* __restrict x, std::int64_t n, std::int32_t most) {
  const auto* bits = reinterpret_cast<const std::int32_t*>(x);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t magnitude = bits[i] & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  return most;
}
std::int32_t largest(const bf16* __restrict x, std::int64_t n, std::int32_t most) {
  const auto* bits = reinterpret_cast<const std::int16_t*>(x);
  auto narrow = static_cast<std::int16_t>(most >> 16);
  for (std::int64_t i = 0; i < n; ++i) {
    const auto magnitude = static_cast<std::int16_t>(bits[i] & 0x7fff);
    narrow = magnitude > narrow ? magnitude : narrow;
  }
  return static_cast<std::int32_t>(narrow) << 16;
}

#ifdef __FMA__
constexpr bool kHasFma = true;
#else
constexpr bool kHasFma = false;
#endif

// x / scale as it is rounded, for |x / scale| <= 1024 and inverse = 1 / scale rounded: the first
// step leaves at most one unit in the last place, the second none (Markstein, IBM Journal of
// Research and Development 34, 1990). Where x is so small that a remainder is no normal number,
// its code is 0 in any case.
float divide(float x, float scale, float inverse) {
  float quotient = x * inverse;
  quotient = __builtin_fmaf(__builtin_fmaf(-quotient, scale, x), inverse, quotient);
  return __builtin_fmaf(__builtin_fmaf(-quotient, scale, x), inverse, quotient);
}

// As quantise_row below, for finite x and scales within [2^-60, 2^60].
template <class T>
std::int32_t multiply_row(const T* __restrict x, std::int64_t n, float scale,
                          fp8_e4m3* __restrict codes, std::int32_t worst) {
  const float inverse = 1.0f / scale;
  for (std::int64_t i = 0; i < n; ++i) {
    const float value = to_acc(x[i]);
    // A remainder of zero turns the quotient -0 into 0.
    const std::uint32_t sign = __builtin_bit_cast(std::uint32_t, value) & 0x80000000u;
    std::uint32_t a =
        __builtin_bit_cast(std::uint32_t, divide(value, scale, inverse)) & 0x7fffffffu;
    a = a < 0x43e00000u ? a : 0x43e00000u;  // 448
    const std::uint32_t normal = (a + 0x7ffffu + ((a >> 20) & 1u)) & 0xfff00000u;
    const float steps = __builtin_bit_cast(float, a) + 16384.0f;  // of 2^-9
    const bool subnormal = a < 0x3c800000u;
    const std::uint32_t code = subnormal ? __builtin_bit_cast(std::uint32_t, steps) - 0x46800000u
                                         : (normal - 0x3c000000u) >> 20;
    codes[i].bits = static_cast<std::uint8_t>(code | (sign >> 24));
    const std::uint32_t small = __builtin_bit_cast(std::uint32_t, steps - 16384.0f);
    const std::uint32_t stored = (subnormal ? small : normal) | sign;
    const float change = value - __builtin_bit_cast(float, stored) * scale;
    const std::int32_t magnitude = __builtin_bit_cast(std::int32_t, change) & 0x7fffffff;
    worst = magnitude > worst ? magnitude : worst;
  }
  return worst;
}

// Writes the codes; the bits of the largest change so far, as above.
template <class T>
std::int32_t quantise_row(const T* __restrict x, std::int64_t n, float scale,
                          fp8_e4m3* __restrict codes, std::int32_t worst) {
  for (std::int64_t i = 0; i < n; ++i) {
    const float value = to_acc(x[i]);
    const fp8_e4m3 code = from_acc<fp8_e4m3>(value / scale);
    codes[i].bits = code.bits;  // a whole struct would keep the loop from vectorising
    const float change = value - to_acc(code) * scale;
    const std::int32_t magnitude = __builtin_bit_cast(std::int32_t, change) & 0x7fffffff;
    worst = magnitude > worst ? magnitude : worst;
  }
  return worst;
}

float scale_for(float amax, bool power_of_two) {
  const float scale = (amax > 1e-4f ? amax : 1e-4f) / 448.0f;
  return power_of_two ? to_acc(ue8m0(scale)) : scale;
}

template <class T>
void quantise(CpuContext& context, const BlockQuantise& op) {
  const std::int64_t rows = op.src.rows(), cols = op.src.cols();
  const std::int64_t across = (cols + kScaleBlock - 1) / kScaleBlock;
  const std::int64_t blocks = (rows + kScaleBlock - 1) / kScaleBlock * across;
  const T* src = op.src.as<T>();
  fp8_e4m3* codes = op.codes.as<fp8_e4m3>();
  float* scales = op.scale.as<float>();
  float* errors = op.error ? op.error.as<float>() : nullptr;
  const std::int64_t stride = op.src.row_stride();
  parallel_for(context, threads_for(context, rows * cols), blocks, [&](std::int64_t block) {
    const std::int64_t row = block / across * kScaleBlock, col = block % across * kScaleBlock;
    const std::int64_t last = least(rows, row + kScaleBlock);
    const std::int64_t width = least(kScaleBlock, cols - col);
    std::int32_t most = 0;
    for (std::int64_t r = row; r < last; ++r) {
      most = largest(src + r * stride + col, width, most);
    }
    float& kept = scales[block / across * op.scale.row_stride() + block % across];
    if (!op.given_scale) kept = scale_for(__builtin_bit_cast(float, most), op.power_of_two);
    const float scale = kept;
    const bool multiplies = kHasFma && most < kInfinity && scale >= 0x1p-60f && scale <= 0x1p60f &&
                            __builtin_bit_cast(float, most) <= 1000.0f * scale;
    std::int32_t worst = 0;
    for (std::int64_t r = row; r < last; ++r) {
      const T* from = src + r * stride + col;
      fp8_e4m3* to = codes + r * op.codes.row_stride() + col;
      worst = multiplies ? multiply_row(from, width, scale, to, worst)
                         : quantise_row(from, width, scale, to, worst);
    }
    if (errors != nullptr) {
      errors[block / across * op.error.row_stride() + block % across] =
          most >= kInfinity ? __builtin_nanf("") : __builtin_bit_cast(float, worst);
    }
  });
}

}  // namespace

void run(CpuContext& context, const BlockQuantise& op) {
  if (op.src.dtype() == DType::kBF16) {
    quantise<bf16>(context, op);
  } else {
    quantise<float>(context, op);
  }
}

}  // namespace ds::kernels::DSK_ISA
