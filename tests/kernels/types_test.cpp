// Element types: every code, both ways, against independent arithmetic and the shared goldens.
#include "kernels/types.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstdint>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "tests/support/paths.h"

namespace ds::test {
namespace {

using kernels::bf16;
using kernels::DType;
using kernels::f16;
using kernels::fp8_e4m3;
using kernels::ue8m0;

// The value of a small float code from its definition.
double decode(std::uint32_t code, int exponent_bits, int mantissa_bits, bool has_infinity) {
  const std::uint32_t mantissa = code & ((1u << mantissa_bits) - 1u);
  const std::uint32_t exponent = (code >> mantissa_bits) & ((1u << exponent_bits) - 1u);
  const bool negative = (code >> (exponent_bits + mantissa_bits)) != 0;
  const int bias = (1 << (exponent_bits - 1)) - 1;
  const std::uint32_t top = (1u << exponent_bits) - 1u;
  double value = 0.0;
  if (exponent == 0) {
    value = std::ldexp(mantissa, 1 - bias - mantissa_bits);
  } else if (has_infinity && exponent == top) {
    value = mantissa == 0 ? HUGE_VAL : std::nan("");
  } else if (!has_infinity && exponent == top && mantissa == (1u << mantissa_bits) - 1u) {
    value = std::nan("");
  } else {
    value = std::ldexp(mantissa + (1u << mantissa_bits),
                       static_cast<int>(exponent) - bias - mantissa_bits);
  }
  return negative ? -value : value;
}

std::uint32_t bits_of(float value) { return std::bit_cast<std::uint32_t>(value); }
bool same(float got, double want) {
  if (std::isnan(want)) return std::isnan(got);
  return static_cast<double>(got) == want && std::signbit(got) == std::signbit(want);
}

// The codes of the finite values in rising order, positive half: for nearest-even by search.
template <class T>
T from_code(std::uint32_t code) {
  T value;
  value.bits = static_cast<decltype(value.bits)>(code);
  return value;
}

// Every boundary between neighbours: the midpoint goes to the even code, the f32 numbers on its two
// sides to the nearer one.
template <class T>
int count_wrong_boundaries(std::uint32_t last_finite) {
  int wrong = 0;
  for (std::uint32_t code = 0; code < last_finite; ++code) {
    const auto low = static_cast<float>(from_code<T>(code));
    const auto high = static_cast<float>(from_code<T>(code + 1));
    const auto middle =
        static_cast<float>((static_cast<double>(low) + static_cast<double>(high)) / 2);
    const std::uint32_t even = (code & 1u) == 0 ? code : code + 1;
    wrong += T(middle).bits != even ? 1 : 0;
    wrong += T(std::nextafter(middle, 0.0f)).bits != code ? 1 : 0;
    wrong += T(std::nextafter(middle, HUGE_VALF)).bits != code + 1 ? 1 : 0;
    wrong += T(low).bits != code ? 1 : 0;
    const std::uint32_t sign = 1u << (8 * sizeof(T) - 1);
    wrong += T(-middle).bits != (even | sign) ? 1 : 0;
    wrong += T(-low).bits != (code | sign) ? 1 : 0;
  }
  return wrong;
}

template <class T>
int count_wrong_round_trips(std::uint32_t codes, int exponent_bits, int mantissa_bits,
                            bool has_infinity) {
  int wrong = 0;
  for (std::uint32_t code = 0; code < codes; ++code) {
    const auto value = static_cast<float>(from_code<T>(code));
    if (!same(value, decode(code, exponent_bits, mantissa_bits, has_infinity))) ++wrong;
    const T back(value);
    const bool right = std::isnan(value) ? std::isnan(static_cast<float>(back)) : back.bits == code;
    if (!right) ++wrong;
  }
  return wrong;
}

TEST_CASE("types: all 65536 bf16 codes") {
  CHECK(count_wrong_round_trips<bf16>(65536, 8, 7, true) == 0);
  CHECK(count_wrong_boundaries<bf16>(0x7f7f) == 0);
}

TEST_CASE("types: all 65536 f16 codes") {
  CHECK(count_wrong_round_trips<f16>(65536, 5, 10, true) == 0);
  CHECK(count_wrong_boundaries<f16>(0x7bff) == 0);
  CHECK(f16(65519.996f).bits == 0x7bff);
  CHECK(f16(65520.0f).bits == 0x7c00);
  CHECK(f16(-HUGE_VALF).bits == 0xfc00);
}

TEST_CASE("types: all 256 fp8 codes") {
  CHECK(count_wrong_round_trips<fp8_e4m3>(256, 4, 3, false) == 0);
  CHECK(count_wrong_boundaries<fp8_e4m3>(0x7e) == 0);
  CHECK(static_cast<float>(from_code<fp8_e4m3>(0x7e)) == 448.0f);
  for (const float large : {448.0f, 449.0f, 464.0f, 480.0f, 1e30f, HUGE_VALF}) {
    CHECK(fp8_e4m3(large).bits == 0x7e);
    CHECK(fp8_e4m3(-large).bits == 0xfe);
  }
  CHECK((fp8_e4m3(std::nanf("")).bits & 0x7f) == 0x7f);
}

TEST_CASE("types: bf16 at the ends") {
  CHECK(bf16(HUGE_VALF).bits == 0x7f80);
  CHECK(bf16(std::bit_cast<float>(0x7f7fffffu)).bits == 0x7f80);
  CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0x7f800001u)))));
  CHECK(std::isnan(static_cast<float>(bf16(std::bit_cast<float>(0xffffffffu)))));
}

TEST_CASE("types: ue8m0 is the smallest power of two above") {
  for (std::uint32_t code = 1; code < 255; ++code) {
    const auto value = static_cast<float>(from_code<ue8m0>(code));
    REQUIRE(static_cast<double>(value) == std::ldexp(1.0, static_cast<int>(code) - 127));
    REQUIRE(ue8m0(value).bits == code);
    if (code < 254) {
      REQUIRE(ue8m0(std::nextafter(value, HUGE_VALF)).bits == code + 1);
    }
  }
  CHECK(static_cast<float>(from_code<ue8m0>(0)) == std::ldexp(1.0f, -127));
  CHECK(std::isnan(static_cast<float>(from_code<ue8m0>(255))));
  CHECK(ue8m0(0.0f).bits == 1);
  // reference/formats.md section 4: amax -> code of amax / 448.
  CHECK(ue8m0(1.0f / 448.0f).bits == 119);
  CHECK(ue8m0(449.0f / 448.0f).bits == 128);
  CHECK(ue8m0(7.0000005f / 448.0f).bits == 122);
  CHECK(ue8m0(1e-4f / 448.0f).bits == 105);
}

TEST_CASE("types: names, sizes and parsing agree") {
  std::set<std::string> names;
  for (int i = 0; i < kernels::kDTypeCount; ++i) {
    const auto dtype = static_cast<DType>(i);
    const std::string name(kernels::dtype_name(dtype));
    names.insert(name);
    DType parsed{};
    CHECK(kernels::parse_dtype(name, parsed));
    CHECK(parsed == dtype);
    if (kernels::dtype_bits(dtype) % 8 == 0) {
      CHECK(kernels::dtype_size(dtype) * 8 == kernels::dtype_bits(dtype));
    } else {
      CHECK_THROWS_AS(kernels::dtype_size(dtype), std::invalid_argument);
    }
  }
  CHECK(names.size() == kernels::kDTypeCount);
  DType untouched = DType::kI64;
  for (const char* bad : {"", "f32", "F32 ", "FP8", "F8_E4M3FN"}) {
    CHECK_FALSE(kernels::parse_dtype(bad, untouched));
  }
  CHECK(untouched == DType::kI64);
  CHECK(kernels::dtype_name(DType::kF8E4M3) == "F8_E4M3");
  CHECK(kernels::dtype_bits(DType::kF4) == 4);
  CHECK(kernels::dtype_size(DType::kC64) == 8);
  CHECK_THROWS_AS(kernels::dtype_name(static_cast<DType>(99)), std::invalid_argument);
  CHECK(kernels::statistics_dtype(DType::kBF16) == DType::kF32);
  CHECK(kernels::statistics_dtype(DType::kF64) == DType::kF64);
  CHECK_FALSE(kernels::is_compute(DType::kF16));
}

// "3f800000 ..." -> numbers.
std::vector<std::uint32_t> hex_list(const std::string& text) {
  std::vector<std::uint32_t> values;
  std::istringstream stream(text);
  std::string word;
  while (stream >> word)
    values.push_back(static_cast<std::uint32_t>(std::stoul(word, nullptr, 16)));
  return values;
}
nlohmann::json read_golden(const char* name) {
  const auto dir = shared_dir();
  if (dir.empty()) return {};
  std::ifstream file(dir / "goldens" / "fp8" / name);
  return nlohmann::json::parse(file);
}

TEST_CASE("types: fp8 goldens, decoding with a scale") {
  const nlohmann::json golden = read_golden("decode.json");
  if (golden.is_null()) {
    MESSAGE("skipped: the shared goldens are not beside this checkout");
    return;
  }
  std::size_t compared = 0;
  std::size_t wrong = 0;
  for (const auto& table : golden.at("tables")) {
    const auto scale = std::bit_cast<float>(hex_list(table.at("scale_bits").get<std::string>())[0]);
    const auto f32 = hex_list(table.at("f32").get<std::string>());
    const auto half = hex_list(table.at("f16").get<std::string>());
    const auto brain = hex_list(table.at("bf16").get<std::string>());
    REQUIRE(f32.size() == 256);
    REQUIRE(half.size() == 256);
    REQUIRE(brain.size() == 256);
    for (std::uint32_t code = 0; code < 256; ++code) {
      const float value = static_cast<float>(from_code<fp8_e4m3>(code)) * scale;
      ++compared;
      if (std::isnan(value)) {
        if (!std::isnan(std::bit_cast<float>(f32[code]))) ++wrong;
        if (!std::isnan(static_cast<float>(from_code<bf16>(brain[code])))) ++wrong;
        if (!std::isnan(static_cast<float>(from_code<f16>(half[code])))) ++wrong;
        continue;
      }
      if (bits_of(value) != f32[code]) ++wrong;
      if (bf16(value).bits != brain[code]) ++wrong;
      if (f16(value).bits != half[code]) ++wrong;
    }
  }
  CHECK(compared >= 256);
  CHECK(wrong == 0);
}

TEST_CASE("types: fp8 goldens, encoding with the clamp") {
  const nlohmann::json golden = read_golden("encode.json");
  if (golden.is_null()) {
    MESSAGE("skipped: the shared goldens are not beside this checkout");
    return;
  }
  const auto f32 = hex_list(golden.at("f32").get<std::string>());
  const auto clamped = hex_list(golden.at("clamped").get<std::string>());
  REQUIRE(f32.size() == clamped.size());
  REQUIRE(f32.size() > 256);
  std::size_t wrong = 0;
  for (std::size_t i = 0; i < f32.size(); ++i) {
    const fp8_e4m3 got(std::bit_cast<float>(f32[i]));
    const bool nan = (clamped[i] & 0x7fu) == 0x7fu;
    if (nan ? (got.bits & 0x7fu) != 0x7fu : got.bits != clamped[i]) ++wrong;
  }
  CHECK(wrong == 0);
}

}  // namespace
}  // namespace ds::test
