// Q8_0, the 8-bit block format of GGUF files (reference/formats.md section 8).
#pragma once

#include <cstddef>
#include <cstdint>

namespace ds {

// A block is an f16 scale d and 32 signed codes; a value is d * code.
inline constexpr std::int64_t kQ8Values = 32;
inline constexpr std::int64_t kQ8Bytes = 34;

// `values` (a multiple of 32) from `in` to blocks at `out`: d = max|x| / 127 in f32, the code
// x * (1 / d) rounded half away from zero, d stored as f16; bit for bit as ggml and gguf-py. A
// block whose 1 / d is no finite number is all zero. Returns the largest |x - d * code|, NaN when a
// value is not finite, infinity when a scale is beyond f16 (those blocks are of no use).
double encode_q8_0(const float* in, std::int64_t values, std::byte* out);

// Back to f32: exactly d * code.
void decode_q8_0(const std::byte* in, std::int64_t values, float* out);

}  // namespace ds
