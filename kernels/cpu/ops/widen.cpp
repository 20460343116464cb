#include "kernels/cpu/ops/widen.h"

#ifdef __F16C__
#include <immintrin.h>
#endif

namespace ds::kernels::DSK_ISA {

void widen_fp8(const fp8_e4m3* src, std::int64_t n, float scale, float* dst) {
  std::int64_t i = 0;
#ifdef __F16C__
  // E4M3 shifted into F16's place is the same number times 2^-8, subnormals included; only NaN
  // needs F16's largest exponent.
  const __m256i keep = _mm256_set1_epi16(static_cast<short>(0xbfff));
  const __m256i code_bits = _mm256_set1_epi16(0x7f);
  const __m256i nan_exponent = _mm256_set1_epi16(0x7c00);
  const __m256 unit = _mm256_set1_ps(256.0f);
  const __m256 factor = _mm256_set1_ps(scale);
  for (; i + 16 <= n; i += 16) {
    const __m256i codes =
        _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(src + i)));
    const __m256i shifted = _mm256_srai_epi16(_mm256_slli_epi16(codes, 8), 1);
    const __m256i is_nan = _mm256_cmpeq_epi16(_mm256_and_si256(codes, code_bits), code_bits);
    const __m256i half =
        _mm256_or_si256(_mm256_and_si256(shifted, keep), _mm256_and_si256(is_nan, nan_exponent));
    const __m256 low = _mm256_cvtph_ps(_mm256_castsi256_si128(half));
    const __m256 high = _mm256_cvtph_ps(_mm256_extracti128_si256(half, 1));
    _mm256_storeu_ps(dst + i, _mm256_mul_ps(_mm256_mul_ps(low, unit), factor));
    _mm256_storeu_ps(dst + i + 8, _mm256_mul_ps(_mm256_mul_ps(high, unit), factor));
  }
#endif
  widen_row_scaled(src + i, n - i, scale, dst + i);
}

}  // namespace ds::kernels::DSK_ISA
