// Small inline helpers of the CPU ops: reading and writing any dtype as its accumulation type, row
// conversions, reductions with a fixed order, and a vectorisable exp.
//
// Everything lives in namespace DSK_ISA and uses no std templates, so that no symbol compiled for a
// wide instruction set can be linked into code of a narrower one. The loops are written for the
// compiler's vectoriser: branch-free bodies, independent lanes.
#pragma once

#include <cstdint>

#include "kernels/types.h"

namespace ds::kernels::DSK_ISA {

// The type in which values of T are summed and transformed.
template <class T>
struct Accumulate {
  using type = float;
};
template <>
struct Accumulate<double> {
  using type = double;
};
template <class T>
using acc_t = typename Accumulate<T>::type;

// Value-preserving widening, branch-free. Subnormal codes are formed as a difference of normal
// numbers: arithmetic on f32 subnormals costs a hundred cycles on some processors.
inline float to_acc(float value) { return value; }
inline double to_acc(double value) { return value; }
inline float to_acc(bf16 value) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(value.bits) << 16);
}
// Selections by masks made of sign bits: the vectoriser would compare the narrow codes and convert
// the result lane by lane.
inline float to_acc(f16 value) {
  const std::uint32_t sign = (static_cast<std::uint32_t>(value.bits) & 0x8000u) << 16;
  const auto magnitude = static_cast<std::int32_t>((value.bits & 0x7fffu) << 13);
  const std::int32_t normal = magnitude + 0x38000000;
  const float shifted = __builtin_bit_cast(float, normal + 0x00800000) - 0x1p-14f;
  const std::int32_t is_subnormal = (magnitude - 0x00800000) >> 31;
  const std::int32_t is_special = (0x0f7fffff - magnitude) >> 31;  // infinity and NaN
  std::int32_t bits =
      normal ^ ((normal ^ __builtin_bit_cast(std::int32_t, shifted)) & is_subnormal);
  bits |= 0x7f800000 & is_special;
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) | sign);
}
inline float to_acc(fp8_e4m3 value) {
  const std::uint32_t sign = (static_cast<std::uint32_t>(value.bits) & 0x80u) << 24;
  const auto magnitude = static_cast<std::int32_t>((value.bits & 0x7fu) << 20);
  const std::int32_t normal = magnitude + 0x3c000000;
  const float shifted = __builtin_bit_cast(float, normal + 0x00800000) - 0x1p-6f;
  const std::int32_t is_subnormal = (magnitude - 0x00800000) >> 31;
  const std::int32_t is_nan = (0x07efffff - magnitude) >> 31;
  std::int32_t bits =
      normal ^ ((normal ^ __builtin_bit_cast(std::int32_t, shifted)) & is_subnormal);
  bits |= 0x7fc00000 & is_nan;
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(bits) | sign);
}
inline float to_acc(ue8m0 value) { return static_cast<float>(value); }

// One rounding to T (to nearest even); the same bits as the conversions in kernels/types.h, without
// branches for f16 and fp8_e4m3.
template <class T>
inline T from_acc(acc_t<T> value) {
  return static_cast<T>(value);
}
template <>
inline f16 from_acc<f16>(float value) {
  const auto u = __builtin_bit_cast(std::uint32_t, value);
  const std::uint32_t a = u & 0x7fffffffu;
  // Adding 0.5 leaves the count of 2^-24 steps, rounded to even, in the low bits.
  const float shifted = __builtin_bit_cast(float, a) + 0.5f;
  const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t, shifted) - 0x3f000000u;
  const std::uint32_t normal = (a + 0xfffu + ((a >> 13) & 1u) - 0x38000000u) >> 13;
  std::uint32_t code = a < 0x38800000u ? subnormal : normal;
  code = a >= 0x477ff000u ? 0x7c00u : code;
  code = a > 0x7f800000u ? (0x7e00u | ((a >> 13) & 0x3ffu)) : code;
  f16 result;
  result.bits = static_cast<std::uint16_t>(code | ((u >> 16) & 0x8000u));
  return result;
}
template <>
inline fp8_e4m3 from_acc<fp8_e4m3>(float value) {
  const auto u = __builtin_bit_cast(std::uint32_t, value);
  const std::uint32_t a = u & 0x7fffffffu;
  const float shifted = __builtin_bit_cast(float, a) + 16384.0f;  // steps of 2^-9
  const std::uint32_t subnormal = __builtin_bit_cast(std::uint32_t, shifted) - 0x46800000u;
  const std::uint32_t normal = (a + 0x7ffffu + ((a >> 20) & 1u) - 0x3c000000u) >> 20;
  std::uint32_t code = a < 0x3c800000u ? subnormal : normal;
  code = a >= 0x43e00000u ? 0x7eu : code;
  code = a > 0x7f800000u ? 0x7fu : code;
  fp8_e4m3 result;
  result.bits = static_cast<std::uint8_t>(code | ((u >> 24) & 0x80u));
  return result;
}

template <class T>
inline acc_t<T> load(const T* p) {
  return to_acc(*p);
}
template <class T>
inline void store(T* p, acc_t<T> value) {
  *p = from_acc<T>(value);
}

// dst[i] = src[i] for i in [0, n); the ranges do not overlap.
template <class T>
inline void widen_row(const T* __restrict src, std::int64_t n, acc_t<T>* __restrict dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = to_acc(src[i]);
}
// dst[i] = src[i] * scale, the product formed in f32.
template <class T>
inline void widen_row_scaled(const T* __restrict src, std::int64_t n, float scale,
                             float* __restrict dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = to_acc(src[i]) * scale;
}
// dst[i] = (T)src[i], rounded once.
template <class T>
inline void narrow_row(const acc_t<T>* __restrict src, std::int64_t n, T* __restrict dst) {
  for (std::int64_t i = 0; i < n; ++i) dst[i] = from_acc<T>(src[i]);
}

// Lanes of the reductions below: enough independent chains to hide the latency of an addition. The
// order of summation depends on n only.
inline constexpr int kLanes = 32;

template <class A>
inline A reduce_lanes(A* lanes) {
  for (int width = kLanes / 2; width > 0; width /= 2) {
    for (int j = 0; j < width; ++j) lanes[j] += lanes[j + width];
  }
  return lanes[0];
}
// sum of x[i] * y[i]
template <class X, class Y>
inline acc_t<X> dot(const X* __restrict x, const Y* __restrict y, std::int64_t n) {
  acc_t<X> lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += to_acc(x[i + j]) * to_acc(y[i + j]);
  }
  for (int j = 0; i < n; ++i, ++j) lanes[j] += to_acc(x[i]) * to_acc(y[i]);
  return reduce_lanes(lanes);
}
// sum of x[i]
template <class X>
inline acc_t<X> sum(const X* __restrict x, std::int64_t n) {
  acc_t<X> lanes[kLanes] = {};
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) lanes[j] += to_acc(x[i + j]);
  }
  for (int j = 0; i < n; ++i, ++j) lanes[j] += to_acc(x[i]);
  return reduce_lanes(lanes);
}
// Largest x[i], `floor` when n == 0 or nothing is above it. NaN is ignored.
template <class X>
inline acc_t<X> max_value(const X* __restrict x, std::int64_t n, acc_t<X> floor) {
  acc_t<X> lanes[kLanes];
  for (int j = 0; j < kLanes; ++j) lanes[j] = floor;
  std::int64_t i = 0;
  for (; i + kLanes <= n; i += kLanes) {
    for (int j = 0; j < kLanes; ++j) {
      const acc_t<X> value = to_acc(x[i + j]);
      lanes[j] = value > lanes[j] ? value : lanes[j];
    }
  }
  acc_t<X> best = floor;
  for (; i < n; ++i) {
    const acc_t<X> value = to_acc(x[i]);
    best = value > best ? value : best;
  }
  for (int j = 0; j < kLanes; ++j) best = lanes[j] > best ? lanes[j] : best;
  return best;
}

// e^x within 2 ulp, subnormal results included; 0 below -104, +inf above 88.73, NaN stays NaN.
inline float exp_approx(float x) {
  constexpr float kMagic =
      0x1.8p23f;  // adding it leaves the nearest integer in the low mantissa bits
  float y = x < -105.0f ? -105.0f : x;
  y = y > 89.0f ? 89.0f : y;
  const float shifted = y * 0x1.715476p+0f + kMagic;
  const float n = shifted - kMagic;
  float r = y - n * 0x1.62e400p-1f;  // ln 2 in two parts; the first has 14 bits, so n * it is exact
  r = r - n * 0x1.7f7d1cp-20f;
  // Minimax polynomial of (e^r - 1 - r) / r^2 on [-ln2/2, ln2/2] (Cephes expf).
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // 2^n in two factors, because n may lie outside the exponent range of one.
  const auto bits = __builtin_bit_cast(std::uint32_t, shifted) - 0x4b400000u;
  const auto half = static_cast<std::uint32_t>(static_cast<std::int32_t>(bits) >> 1);
  const float scale1 = __builtin_bit_cast(float, (half + 127u) << 23);
  const float scale2 = __builtin_bit_cast(float, (bits - half + 127u) << 23);
  return p * scale1 * scale2;
}
inline double exp_approx(double x) { return __builtin_exp(x); }
// 1 / (1 + e^-x)
template <class A>
inline A sigmoid(A x) {
  return A(1) / (A(1) + exp_approx(-x));
}

}  // namespace ds::kernels::DSK_ISA
