#include "kernels/block_quantise.h"

#include "kernels/cpu/isa_ops.h"
#include "kernels/cpu/ops/block_scale.h"
#include "kernels/cpu/ops/parallel.h"
#include "kernels/cpu/ops/simd.h"

namespace ds::kernels::DSK_ISA {
namespace {

constexpr std::int32_t kInfinity = 0x7f800000;

// Bits of the largest magnitude: as integers they are in the order of the values, NaN last.
std::int32_t largest(const float* __restrict x, std::int64_t n, std::int32_t most) {
  const auto* bits = reinterpret_cast<const std::int32_t*>(x);
  for (std::int64_t i = 0; i < n; ++i) {
    const std::int32_t magnitude = bits[i] & 0x7fffffff;
    most = magnitude > most ? magnitude : most;
  }
  return most;
}

// Writes the codes; the bits of the largest change so far, as above.
std::int32_t quantise_row(const float* __restrict x, std::int64_t n, float scale,
                          fp8_e4m3* __restrict codes, std::int32_t worst) {
  for (std::int64_t i = 0; i < n; ++i) {
    const fp8_e4m3 code = from_acc<fp8_e4m3>(x[i] / scale);
    codes[i].bits = code.bits;  // a whole struct would keep the loop from vectorising
    const float change = x[i] - to_acc(code) * scale;
    const std::int32_t magnitude = __builtin_bit_cast(std::int32_t, change) & 0x7fffffff;
    worst = magnitude > worst ? magnitude : worst;
  }
  return worst;
}

float scale_for(float amax, bool power_of_two) {
  const float scale = (amax > 1e-4f ? amax : 1e-4f) / 448.0f;
  return power_of_two ? to_acc(ue8m0(scale)) : scale;
}

}  // namespace

void run(CpuContext& context, const BlockQuantise& op) {
  const std::int64_t rows = op.src.rows(), cols = op.src.cols();
  const std::int64_t across = (cols + kScaleBlock - 1) / kScaleBlock;
  const std::int64_t blocks = (rows + kScaleBlock - 1) / kScaleBlock * across;
  const float* src = op.src.as<float>();
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
    std::int32_t worst = 0;
    for (std::int64_t r = row; r < last; ++r) {
      worst = quantise_row(src + r * stride + col, width, scale,
                           codes + r * op.codes.row_stride() + col, worst);
    }
    if (errors != nullptr) {
      errors[block / across * op.error.row_stride() + block % across] =
          most >= kInfinity ? __builtin_nanf("") : __builtin_bit_cast(float, worst);
    }
  });
}

}  // namespace ds::kernels::DSK_ISA
