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
    return src.as<float>()[r * src.row_stride() + c];
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
  for_settings([](const Setting& s) {
    if (s.dtype != DType::kF32) return;
    for (const bool power_of_two : {false, true}) {
      CpuContext context = s.context();
      GuardedMatrix src = random_matrix(DType::kF32, 200, 301, s.gap, 1);
      float* values = src.view().as<float>();
      // A block of zeros, one of tiny values, a large one.
      const std::int64_t stride = src.view().row_stride();
      for (std::int64_t r = 0; r < 128; ++r) {
        for (std::int64_t c = 0; c < 128; ++c) values[r * stride + c] = 0.0f;
        for (std::int64_t c = 256; c < 301; ++c) values[r * stride + c] *= 1e-7f;
      }
      values[150 * stride + 5] = -3e4f;
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
          worst[block] = std::max(
              worst[block],
              std::fabs(values[r * stride + c] - static_cast<float>(code) * want.scale[block]));
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
  CpuContext context(1, kernels::detect_isa());
  run(context, kernels::BlockQuantise{.src = ConstView(src.data(), DType::kF32, {1, 256}),
                                      .codes = View(codes.data(), DType::kF8E4M3, {1, 256}),
                                      .scale = View(scale.data(), DType::kF32, {1, 2}),
                                      .error = View(error.data(), DType::kF32, {1, 2})});
  CHECK(error[0] < 1e-6f);
  CHECK(std::isnan(error[1]));
}

}  // namespace ds::test
