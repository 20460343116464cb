#include "libcore/base/rng.h"

#include <Random123/philox.h>

#include <cmath>
#include <numbers>
#include <numeric>
#include <utility>

namespace ds {
namespace {

std::uint32_t low(std::uint64_t value) { return static_cast<std::uint32_t>(value); }
std::uint32_t high(std::uint64_t value) { return static_cast<std::uint32_t>(value >> 32); }

r123::Philox4x32::ctr_type block(std::uint64_t seed, std::uint64_t stream, std::uint64_t index) {
  const r123::Philox4x32::key_type key = {{low(seed), high(seed)}};
  const r123::Philox4x32::ctr_type counter = {{low(index), high(index), low(stream), high(stream)}};
  return r123::Philox4x32{}(counter, key);
}

std::uint64_t scramble(std::uint64_t x) {  // splitmix64's output function
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

}  // namespace

std::uint32_t Rng::bits(std::uint64_t counter) const {
  return block(seed_, stream_, counter / 4).v[counter % 4];
}

float Rng::uniform(std::uint64_t counter) const {
  return static_cast<float>(bits(counter) >> 8) * 0x1p-24f;
}

float Rng::normal(std::uint64_t counter) const {
  const auto words = block(seed_, stream_, counter / 2);
  const std::size_t first = (counter % 2) * 2;
  // (0, 1] for the logarithm. In double: the float result then rounds the same on every libm.
  const double u = (static_cast<double>(words.v[first]) + 1.0) * 0x1p-32;
  const double v = static_cast<double>(words.v[first + 1]) * 0x1p-32;
  return static_cast<float>(std::sqrt(-2.0 * std::log(u)) * std::cos(2.0 * std::numbers::pi * v));
}

std::vector<std::int64_t> Rng::permutation(std::int64_t n) const {
  std::vector<std::int64_t> order(n > 0 ? static_cast<std::size_t>(n) : 0);
  std::iota(order.begin(), order.end(), std::int64_t{0});
  for (std::size_t i = order.size(); i-- > 1;) {
    const auto words = block(seed_, stream_, i / 2);
    const std::size_t first = (i % 2) * 2;
    const std::uint64_t draw =
        static_cast<std::uint64_t>(words.v[first + 1]) << 32 | words.v[first];
    // The high half of a 64 x 64 bit product maps the draw to 0 .. i with bias below 2^-32.
    const auto j = static_cast<std::size_t>((static_cast<unsigned __int128>(draw) * (i + 1)) >> 64);
    std::swap(order[i], order[j]);
  }
  return order;
}

std::uint64_t mix_stream(std::uint64_t a, std::uint64_t b) {
  constexpr std::uint64_t kGolden = 0x9e3779b97f4a7c15u;
  return scramble(scramble(a + kGolden) + b * kGolden + kGolden);
}

}  // namespace ds
