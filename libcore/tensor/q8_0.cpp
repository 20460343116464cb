#include "libcore/tensor/q8_0.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/types.h"

namespace ds {

double encode_q8_0(const float* in, std::int64_t values, std::byte* out) {
  double worst = 0.0;
  for (std::int64_t begin = 0; begin < values; begin += kQ8Values, out += kQ8Bytes) {
    const float* x = in + begin;
    float largest = 0.0F;
    float finite = 0.0F;  // x * 0 is NaN for what is not finite, and stays so
    for (std::int64_t i = 0; i < kQ8Values; ++i) {
      const float magnitude = std::fabs(x[i]);
      largest = magnitude > largest ? magnitude : largest;
      finite += x[i] * 0.0F;
    }
    const float d = largest / 127.0F;
    float inverse = d == 0.0F ? 0.0F : 1.0F / d;
    if (!std::isfinite(inverse)) inverse = 0.0F;
    const kernels::f16 stored(d);
    const auto scale = static_cast<float>(stored);
    std::int8_t codes[kQ8Values];
    float error = 0.0F;
    if (finite == 0.0F && std::isfinite(scale)) {
      for (std::int64_t i = 0; i < kQ8Values; ++i) {
        const float scaled = x[i] * inverse;
        // Half away from zero without adding 0.5 first, which would round up what is just below it.
        const auto whole = static_cast<std::int32_t>(scaled);
        const float rest = scaled - static_cast<float>(whole);
        const std::int32_t code = whole + static_cast<std::int32_t>(rest >= 0.5F) -
                                  static_cast<std::int32_t>(rest <= -0.5F);
        codes[i] = static_cast<std::int8_t>(code);
        const float difference = std::fabs(x[i] - scale * static_cast<float>(code));
        error = difference > error ? difference : error;
      }
      worst = worst < error ? error : worst;
    } else {
      std::fill_n(codes, kQ8Values, std::int8_t{0});
      worst = finite == 0.0F && !std::isnan(worst) ? std::numeric_limits<double>::infinity()
                                                   : std::numeric_limits<double>::quiet_NaN();
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
