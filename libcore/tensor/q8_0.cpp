#include "libcore/tensor/q8_0.h"

#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/types.h"

namespace ds {

namespace {

// The bits of |x| as an integer: ordered as the magnitudes are, with infinity and NaN above all
// numbers. Maxima of integers become vector instructions, maxima of floats do not.
std::int32_t magnitude_bits(float x) { return std::bit_cast<std::int32_t>(x) & 0x7fffffff; }
constexpr std::int32_t kInfinityBits = 0x7f800000;

}  // namespace

double encode_q8_0(const float* in, std::int64_t values, std::byte* out) {
  double worst = 0.0;
  for (std::int64_t begin = 0; begin < values; begin += kQ8Values, out += kQ8Bytes) {
    const float* x = in + begin;
    std::int32_t largest = 0;
    for (std::int64_t i = 0; i < kQ8Values; ++i) {
      const std::int32_t magnitude = magnitude_bits(x[i]);
      largest = magnitude > largest ? magnitude : largest;
    }
    const float d = std::bit_cast<float>(largest) / 127.0F;
    float inverse = d == 0.0F ? 0.0F : 1.0F / d;
    if (!std::isfinite(inverse)) inverse = 0.0F;
    const kernels::f16 stored(d);
    const auto scale = static_cast<float>(stored);
    std::int8_t codes[kQ8Values] = {};
    if (largest >= kInfinityBits) {
      worst = std::numeric_limits<double>::quiet_NaN();
    } else if (!std::isfinite(scale)) {
      if (!std::isnan(worst)) worst = std::numeric_limits<double>::infinity();
    } else {
      std::int32_t error = 0;
      for (std::int64_t i = 0; i < kQ8Values; ++i) {
        const float scaled = x[i] * inverse;
        // Half away from zero without adding 0.5 first, which would round up what is just below it.
        const auto whole = static_cast<std::int32_t>(scaled);
        const float rest = scaled - static_cast<float>(whole);
        const std::int32_t code = whole + static_cast<std::int32_t>(rest >= 0.5F) -
                                  static_cast<std::int32_t>(rest <= -0.5F);
        codes[i] = static_cast<std::int8_t>(code);
        const std::int32_t difference = magnitude_bits(x[i] - scale * static_cast<float>(code));
        error = difference > error ? difference : error;
      }
      const double found = std::bit_cast<float>(error);
      worst = worst < found ? found : worst;
    }
    std::memcpy(out, &stored, sizeof stored);
    std::memcpy(out + sizeof stored, codes, sizeof codes);
  }
  return worst;
}

void decode_q8_0(const std::byte* in, std::int64_t values, float* out) {
  for (std::int64_t begin = 0; begin < values; begin += kQ8Values, in += kQ8Bytes) {
    kernels::f16 stored;
    std::memcpy(&stored, in, sizeof stored);
    const auto scale = static_cast<float>(stored);
    std::int8_t codes[kQ8Values];
    std::memcpy(codes, in + sizeof stored, sizeof codes);
    for (std::int64_t i = 0; i < kQ8Values; ++i) {
      out[begin + i] = scale * static_cast<float>(codes[i]);
    }
  }
}

}  // namespace ds
