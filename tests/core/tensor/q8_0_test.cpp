// Q8_0 blocks: the rounding rules of ggml, value by value.
#include "libcore/tensor/q8_0.h"

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "kernels/types.h"

namespace ds::test {

namespace {

std::vector<std::byte> encode(const std::vector<float>& values, double* error = nullptr) {
  std::vector<std::byte> blocks(values.size() / 32 * 34, std::byte{0xaa});
  const double worst =
      encode_q8_0(values.data(), static_cast<std::int64_t>(values.size()), blocks.data());
  if (error != nullptr) *error = worst;
  return blocks;
}
int code(const std::vector<std::byte>& blocks, std::size_t value) {
  return static_cast<std::int8_t>(blocks[value / 32 * 34 + 2 + value % 32]);
}
float scale(const std::vector<std::byte>& blocks, std::size_t block) {
  kernels::f16 stored;
  std::memcpy(&stored, blocks.data() + block * 34, sizeof stored);
  return static_cast<float>(stored);
}

}  // namespace

TEST_CASE("q8_0: halves go away from zero, what is just below a half does not") {
  std::vector<float> x(32, 0.0F);
  x[0] = 127.0F;  // d is exactly 1
  const std::vector<std::pair<float, int>> cases{{0.5F, 1},
                                                 {-0.5F, -1},
                                                 {1.5F, 2},
                                                 {-1.5F, -2},
                                                 {2.5F, 3},
                                                 {-2.5F, -3},
                                                 {126.5F, 127},
                                                 {-126.5F, -127},
                                                 {std::nextafter(0.5F, 0.0F), 0},
                                                 {std::nextafter(-0.5F, 0.0F), 0},
                                                 {std::nextafter(2.5F, 0.0F), 2},
                                                 {0.49F, 0},
                                                 {-127.0F, -127}};
  for (std::size_t i = 0; i < cases.size(); ++i) x[i + 1] = cases[i].first;
  double error = 0.0;
  const auto blocks = encode(x, &error);
  CHECK(scale(blocks, 0) == 1.0F);
  CHECK(code(blocks, 0) == 127);
  for (std::size_t i = 0; i < cases.size(); ++i) {
    CHECK_MESSAGE(code(blocks, i + 1) == cases[i].second, cases[i].first);
  }
  CHECK(error == 0.5);
}

TEST_CASE("q8_0: codes come from the f32 scale, values from its f16") {
  // d = 0.1 / 127 in f32; a code computed from its f16 would be 127 * (d / f16(d)), not 127.
  std::vector<float> x(64, 0.0F);
  x[3] = -0.1F;
  x[35] = 3.0F;
  x[36] = 1.0F;
  const auto blocks = encode(x);
  CHECK(code(blocks, 3) == -127);
  CHECK(code(blocks, 35) == 127);
  CHECK(code(blocks, 36) == 42);  // 42.33
  CHECK(scale(blocks, 0) == static_cast<float>(kernels::f16(0.1F / 127.0F)));
  std::vector<float> back(64, 9.0F);
  decode_q8_0(blocks.data(), 64, back.data());
  CHECK(back[3] == -127.0F * scale(blocks, 0));
  CHECK(back[36] == 42.0F * scale(blocks, 1));
  CHECK(back[0] == 0.0F);
}

TEST_CASE("q8_0: zero blocks, tiny blocks, and values that are no numbers") {
  double error = 1.0;
  auto blocks = encode(std::vector<float>(32, 0.0F), &error);
  CHECK(error == 0.0);
  for (const std::byte byte : blocks) CHECK(byte == std::byte{0});

  // 1 / d would be infinite.
  std::vector<float> x(32, 0.0F);
  x[7] = 1e-38F;
  blocks = encode(x, &error);
  CHECK(code(blocks, 7) == 0);
  CHECK(std::isfinite(error));

  x[7] = std::numeric_limits<float>::quiet_NaN();
  encode(x, &error);
  CHECK(std::isnan(error));
  x[7] = std::numeric_limits<float>::infinity();
  encode(x, &error);
  CHECK(std::isnan(error));
  x[7] = 65504.0F * 128.0F;  // a scale beyond f16
  encode(x, &error);
  CHECK(std::isinf(error));
}

}  // namespace ds::test
