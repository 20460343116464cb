// BlockQuantise on the CPU against the rule written out in plain C++, and against PyTorch.
#include "kernels/block_quantise.h"

#include <cmath>
#include <cstring>

#include "libcore/io/safetensors.h"
#include "tests/kernels/coverage.h"
#include "tests/kernels/harness.h"
#include "tests/support/paths.h"

namespace ds::test {

namespace {

struct Expected {
  std::vector<std::uint8_t> codes;
  std::vector<float> scale;
};

Expected quantise_plainly(const ConstView& src, bool power_of_two) {
  const std::int64_t rows = src.rows(), cols = src.cols(), across = (cols + 127) / 128;
  Expected out;
  out.codes.resize(static_cast<std::size_t>(rows * cols));
  out.scale.assign(static_cast<std::size_t>((rows + 127) / 128 * across), 1e-4f);
  const auto at = [&](std::int64_t r, std::int64_t c) {
    return static_cast<float>(element(src, r, c));
  };
  const auto block = [&](std::int64_t r, std::int64_t c) -> float& {
    return out.scale[static_cast<std::size_t>(r / 128 * across + c / 128)];
  };
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) {
      block(r, c) = std::max(block(r, c), std::fabs(at(r, c)));
    }
  }
  for (float& scale : out.scale) {
    scale /= 448.0f;
    if (power_of_two) scale = static_cast<float>(kernels::ue8m0(scale));
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int64_t c = 0; c < cols; ++c) {
      out.codes[static_cast<std::size_t>(r * cols + c)] =
          kernels::fp8_e4m3(at(r, c) / block(r, c)).bits;
    }
  }
  return out;
}

}  // namespace

void parity(Of<kernels::BlockQuantise>) {
  for_settings({DType::kF32, DType::kBF16}, [](const Setting& s) {
    for (const bool power_of_two : {false, true}) {
      CpuContext context = s.context();
      GuardedMatrix src = random_matrix(s.dtype, 200, 301, s.gap, 1);
      // A block of zeros, one of tiny values, a large one.
      for (std::int64_t r = 0; r < 128; ++r) {
        for (std::int64_t c = 0; c < 128; ++c) set_element(src.view(), r, c, 0.0);
        for (std::int64_t c = 256; c < 301; ++c) {
          set_element(src.view(), r, c, 1e-7 * element(src.view(), r, c));
        }
      }
      set_element(src.view(), 150, 5, -3e4);
      GuardedMatrix codes(DType::kF8E4M3, 200, 301, s.gap);
      GuardedMatrix scale(DType::kF32, 2, 3, s.gap);
      GuardedMatrix error(DType::kF32, 2, 3, s.gap);
      const kernels::BlockQuantise op{.src = src.view(),
                                      .power_of_two = power_of_two,
                                      .codes = codes.view(),
                                      .scale = scale.view(),
                                      .error = error.view()};
      check(op);
      run(context, op);
      const Expected want = quantise_plainly(src.view(), power_of_two);
      float worst[6] = {};
      for (std::int64_t r = 0; r < 200; ++r) {
        for (std::int64_t c = 0; c < 301; ++c) {
          const auto code = codes.view().as<kernels::fp8_e4m3>()[r * codes.view().row_stride() + c];
          REQUIRE(code.bits == want.codes[static_cast<std::size_t>(r * 301 + c)]);
          const std::size_t block = static_cast<std::size_t>(r / 128 * 3 + c / 128);
          worst[block] =
              std::max(worst[block], std::fabs(static_cast<float>(element(src.view(), r, c)) -
                                               static_cast<float>(code) * want.scale[block]));
        }
      }
      for (std::int64_t i = 0; i < 6; ++i) {
        const std::int64_t at = i / 3 * scale.view().row_stride() + i % 3;
        CHECK(scale.view().as<float>()[at] == want.scale[static_cast<std::size_t>(i)]);
        CHECK(error.view().as<float>()[at] == doctest::Approx(worst[i]).epsilon(1e-5));
      }
      CHECK(codes.intact());
      CHECK(scale.intact());
      CHECK(error.intact());
    }
  });
}

TEST_CASE("block_quantise: every BF16 number by the division's code, ties included") {
  // Scales that are powers of two make ties of many values, 1 / 448 of some, the others of few. The
  // outermost, and blocks with values far beyond 448 scales, are not divided by multiplication.
  std::vector<kernels::bf16> src;
  for (std::uint32_t bits = 0; bits < 0x10000u; ++bits) {
    kernels::bf16 value;
    value.bits = static_cast<std::uint16_t>(bits);
    if ((bits & 0x7f80u) != 0x7f80u) src.push_back(value);
  }
  src.resize(512 * 128);  // the rest is zero
  std::vector<float> wide(src.size());
  std::vector<std::uint8_t> codes(src.size());
  for (const Isa isa : available_isas()) {
    CpuContext context(2, isa);
    for (const float scale :
         {1.0f, 0x1p-9f, 1.0f / 448.0f, 0.875f / 448.0f, 144.0f / 448.0f, 160.0f / 448.0f,
          176.0f / 448.0f, 192.0f / 448.0f, 208.0f / 448.0f, 240.0f / 448.0f, 3.1e-3f, 177.7f,
          0x1.fffffep-1f, 1e-18f, 1e-19f, 1e18f, 1e19f, -1.0f}) {
      for (const bool all : {true, false}) {
        INFO(kernels::isa_name(isa), ", scale ", scale, all ? "" : ", values up to 900 scales");
        std::vector<float> scales(4, scale);
        std::vector<kernels::bf16> values = src;
        for (kernels::bf16& value : values) {
          const bool far = std::fabs(static_cast<float>(value)) > 900.0f * std::fabs(scale);
          if (!all && far) value.bits &= 0x8000u;
        }
        for (std::size_t i = 0; i < values.size(); ++i) wide[i] = static_cast<float>(values[i]);
        for (const ConstView& view : {ConstView(values.data(), DType::kBF16, {512, 128}),
                                      ConstView(wide.data(), DType::kF32, {512, 128})}) {
          run(context,
              kernels::BlockQuantise{.src = view,
                                     .given_scale = true,
                                     .codes = View(codes.data(), DType::kF8E4M3, {512, 128}),
                                     .scale = View(scales.data(), DType::kF32, {4, 1})});
          std::size_t different = 0;
          for (std::size_t i = 0; i < src.size(); ++i) {
            different += codes[i] != kernels::fp8_e4m3(wide[i] / scale).bits ? 1 : 0;
          }
          CHECK(different == 0);
        }
      }
    }
  }
}

TEST_CASE("block_quantise: the bytes of PyTorch, ragged edges included") {
  if (shared_dir().empty()) {
    MESSAGE("skipped: shared/goldens is not there");
    return;
  }
  const SafetensorsFile file =
      SafetensorsFile::open(shared_dir() / "goldens" / "fp8" / "block_quant.safetensors");
  const auto tensor = [&](const char* name) {
    const TensorInfo* info = file.find(name);
    REQUIRE(info != nullptr);
    return std::pair(file.data(*info), info->bytes());
  };
  const auto [input, input_bytes] = tensor("input");
  std::vector<float> src(input_bytes / 4);
  std::memcpy(src.data(), input, input_bytes);
  for (const bool power_of_two : {false, true}) {
    const std::string group = power_of_two ? "ue8m0" : "f32_scale";
    std::vector<std::uint8_t> codes(src.size());
    std::vector<float> scale(6);
    CpuContext context(2, kernels::detect_isa());
    run(context, kernels::BlockQuantise{.src = ConstView(src.data(), DType::kF32, {144, 270}),
                                        .power_of_two = power_of_two,
                                        .codes = View(codes.data(), DType::kF8E4M3, {144, 270}),
                                        .scale = View(scale.data(), DType::kF32, {2, 3})});
    const auto [want, size] = tensor((group + ".codes").c_str());
    CHECK(std::memcmp(codes.data(), want, size) == 0);
    const auto [want_scale, scale_size] = tensor((group + ".scale_inv").c_str());
    CHECK(std::memcmp(scale.data(), want_scale, scale_size) == 0);
  }
}

TEST_CASE("block_quantise: a value that is not finite shows in the error of its block") {
  std::vector<float> src(256, 1.0f);
  src[200] = std::nanf("");
  std::vector<std::uint8_t> codes(256);
  std::vector<float> scale(2), error(2);
  std::vector<kernels::bf16> narrow(src.size());
  for (std::size_t i = 0; i < src.size(); ++i) narrow[i] = kernels::bf16(src[i]);
  CpuContext context(1, kernels::detect_isa());
  for (const ConstView& view : {ConstView(src.data(), DType::kF32, {1, 256}),
                                ConstView(narrow.data(), DType::kBF16, {1, 256})}) {
    error = {-1.0f, -1.0f};
    run(context, kernels::BlockQuantise{.src = view,
                                        .codes = View(codes.data(), DType::kF8E4M3, {1, 256}),
                                        .scale = View(scale.data(), DType::kF32, {1, 2}),
                                        .error = View(error.data(), DType::kF32, {1, 2})});
    CHECK(error[0] >= 0.0f);
    CHECK(error[0] < 1e-6f);
    CHECK(std::isnan(error[1]));
  }
}

}  // namespace ds::test
