// Element types of tensors, and their exact conversions.
#pragma once

#include <bit>
#include <cstdint>
#include <stdexcept>
#include <string_view>

namespace ds::kernels {

// Every dtype a safetensors file may hold, in the order the reference writer ranks them (low to
// high). Only some of them can be computed with; see is_compute().
// Source: huggingface/safetensors tensor.rs (reference/formats.md section 1).
enum class DType : std::uint8_t {
  kBool,
  kF4,
  kF6E2M3,
  kF6E3M2,
  kU8,
  kI8,
  kF8E5M2,
  kF8E4M3,
  kF8E8M0,
  kF8E4M3Fnuz,
  kF8E5M2Fnuz,
  kI16,
  kU16,
  kF16,
  kBF16,
  kI32,
  kU32,
  kF32,
  kC64,
  kF64,
  kI64,
  kU64,
};
inline constexpr int kDTypeCount = 22;

// Bits of one element.
int dtype_bits(DType dtype);
// Bytes of one element; throws std::invalid_argument for the sub-byte types.
std::int64_t dtype_size(DType dtype);
// The safetensors spelling: "F32", "BF16", "F8_E4M3", ...
std::string_view dtype_name(DType dtype);
// Inverse of dtype_name. Returns false when `name` is no known dtype.
bool parse_dtype(std::string_view name, DType& dtype);

// F32, BF16 and F64: what activations may be. F64 exists for gradient checks.
constexpr bool is_compute(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF64;
}
// The dtype in which statistics (rstd, log-sum-exp, routing weights, loss) of a compute dtype live.
constexpr DType statistics_dtype(DType compute) {
  return compute == DType::kF64 ? DType::kF64 : DType::kF32;
}

// The conversions are always inlined: kernels/cpu/ops is compiled for several instruction sets, and
// no out-of-line copy made for a wide one may be shared with the rest of the program.
struct bf16 {
  std::uint16_t bits = 0;
  bf16() = default;
  // Round to nearest even; NaN stays NaN.
  [[gnu::always_inline]] constexpr explicit bf16(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    const std::uint32_t rounded = u + 0x7fffu + ((u >> 16) & 1u);
    const bool nan = (u & 0x7fffffffu) > 0x7f800000u;
    bits = static_cast<std::uint16_t>(nan ? ((u >> 16) | 0x40u) : (rounded >> 16));
  }
  [[gnu::always_inline]] constexpr explicit operator float() const {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 16);
  }
};

struct f16 {
  std::uint16_t bits = 0;
  f16() = default;
  // Round to nearest even; overflow becomes infinity, NaN stays NaN.
  [[gnu::always_inline]] constexpr explicit f16(float value);
  [[gnu::always_inline]] constexpr explicit operator float() const;
};

// E4M3FN: bias 7, no infinity, NaN = 0x7F and 0xFF, largest 448 (reference/formats.md section 3).
struct fp8_e4m3 {
  std::uint8_t bits = 0;
  fp8_e4m3() = default;
  // Clamps to +-448 first (never produces NaN from a finite or infinite value), then rounds to
  // nearest even; NaN stays NaN.
  [[gnu::always_inline]] constexpr explicit fp8_e4m3(float value);
  [[gnu::always_inline]] constexpr explicit operator float() const;
};

// UE8M0: byte b means 2^(b-127), 0xFF is NaN (OCP MX).
struct ue8m0 {
  std::uint8_t bits = 0;
  ue8m0() = default;
  // Smallest power of two >= value, exponent clamped to [1, 254] (DeepGEMM ceil_to_ue8m0).
  [[gnu::always_inline]] constexpr explicit ue8m0(float value) {
    const auto u = std::bit_cast<std::uint32_t>(value);
    std::uint32_t e = ((u >> 23) & 255u) + ((u & 0x7fffffu) != 0 ? 1u : 0u);
    e = e < 1u ? 1u : (e > 254u ? 254u : e);
    bits = static_cast<std::uint8_t>(e);
  }
  [[gnu::always_inline]] constexpr explicit operator float() const {
    if (bits == 0xff) return std::bit_cast<float>(0x7fc00000u);
    if (bits == 0) return std::bit_cast<float>(0x00400000u);
    return std::bit_cast<float>(static_cast<std::uint32_t>(bits) << 23);
  }
};

constexpr f16::f16(float value) {
  const auto u = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
  const std::uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) {
    bits = static_cast<std::uint16_t>(sign | 0x7e00u | ((a >> 13) & 0x3ffu));
    return;
  }
  if (a >= 0x477ff000u) {  // 65520 and above round to infinity
    bits = static_cast<std::uint16_t>(sign | 0x7c00u);
    return;
  }
  if (a < 0x38800000u) {  // below the smallest normal: count of 2^-24 steps
    if (a < 0x33000000u) {
      bits = sign;
      return;
    }
    const std::uint32_t shift = 126u - (a >> 23);
    const std::uint32_t mantissa = (a & 0x7fffffu) | 0x800000u;
    const std::uint32_t kept = mantissa >> shift;
    const std::uint32_t rest = mantissa & ((1u << shift) - 1u);
    const std::uint32_t half = 1u << (shift - 1u);
    const std::uint32_t up = (rest > half || (rest == half && (kept & 1u))) ? 1u : 0u;
    bits = static_cast<std::uint16_t>(sign | (kept + up));
    return;
  }
  const std::uint32_t rounded = a + 0xfffu + ((a >> 13) & 1u);
  bits = static_cast<std::uint16_t>(sign | ((rounded - 0x38000000u) >> 13));
}

constexpr f16::operator float() const {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x8000u) << 16;
  const std::uint32_t e = (bits >> 10) & 31u;
  const std::uint32_t m = bits & 0x3ffu;
  if (e == 31u) return std::bit_cast<float>(sign | 0x7f800000u | (m << 13));
  if (e != 0u) return std::bit_cast<float>(sign | ((e + 112u) << 23) | (m << 13));
  const float magnitude = static_cast<float>(m) * 0x1p-24f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

constexpr fp8_e4m3::fp8_e4m3(float value) {
  const auto u = std::bit_cast<std::uint32_t>(value);
  const auto sign = static_cast<std::uint8_t>((u >> 24) & 0x80u);
  const std::uint32_t a = u & 0x7fffffffu;
  if (a > 0x7f800000u) {
    bits = static_cast<std::uint8_t>(sign | 0x7fu);
    return;
  }
  if (a >= 0x43e00000u) {  // 448 and above
    bits = static_cast<std::uint8_t>(sign | 0x7eu);
    return;
  }
  if (a < 0x3c800000u) {  // below 2^-6: count of 2^-9 steps, ties to even
    const float steps = std::bit_cast<float>(a) * 512.0f;
    auto whole = static_cast<std::uint32_t>(steps);
    const float rest = steps - static_cast<float>(whole);
    if (rest > 0.5f || (rest == 0.5f && (whole & 1u))) ++whole;
    bits = static_cast<std::uint8_t>(sign | whole);
    return;
  }
  const std::uint32_t rounded = a + 0x7ffffu + ((a >> 20) & 1u);
  bits = static_cast<std::uint8_t>(sign | ((rounded - 0x3c000000u) >> 20));
}

constexpr fp8_e4m3::operator float() const {
  const std::uint32_t sign = static_cast<std::uint32_t>(bits & 0x80u) << 24;
  const std::uint32_t e = (bits >> 3) & 15u;
  const std::uint32_t m = bits & 7u;
  if (e == 15u && m == 7u) return std::bit_cast<float>(sign | 0x7fc00000u);
  if (e != 0u) return std::bit_cast<float>(sign | ((e + 120u) << 23) | (m << 20));
  const float magnitude = static_cast<float>(m) * 0x1p-9f;
  return std::bit_cast<float>(sign | std::bit_cast<std::uint32_t>(magnitude));
}

template <class T>
struct dtype_of;
template <>
struct dtype_of<float> {
  static constexpr DType value = DType::kF32;
};
template <>
struct dtype_of<double> {
  static constexpr DType value = DType::kF64;
};
template <>
struct dtype_of<bf16> {
  static constexpr DType value = DType::kBF16;
};
template <>
struct dtype_of<f16> {
  static constexpr DType value = DType::kF16;
};
template <>
struct dtype_of<fp8_e4m3> {
  static constexpr DType value = DType::kF8E4M3;
};
template <>
struct dtype_of<ue8m0> {
  static constexpr DType value = DType::kF8E8M0;
};
template <>
struct dtype_of<std::int32_t> {
  static constexpr DType value = DType::kI32;
};
template <>
struct dtype_of<std::int64_t> {
  static constexpr DType value = DType::kI64;
};
template <>
struct dtype_of<std::uint8_t> {
  static constexpr DType value = DType::kU8;
};
template <>
struct dtype_of<std::uint32_t> {
  static constexpr DType value = DType::kU32;
};
template <class T>
inline constexpr DType dtype_of_v = dtype_of<T>::value;

// Calls f.template operator()<T>() with the C++ type of a compute dtype (float, double or bf16).
template <class F>
auto with_compute_type(DType dtype, F&& f) {
  switch (dtype) {
    case DType::kF32:
      return f.template operator()<float>();
    case DType::kF64:
      return f.template operator()<double>();
    case DType::kBF16:
      return f.template operator()<bf16>();
    default:
      throw std::invalid_argument("with_compute_type: not a compute dtype");
  }
}

}  // namespace ds::kernels
