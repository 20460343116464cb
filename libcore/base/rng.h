// Counter-based random numbers: each draw is a pure function of (seed, stream, counter), so a
// resumed run needs no saved generator state. Philox4x32-10 (Random123).
#pragma once

#include <cstdint>
#include <vector>

namespace ds {

// Streams of one seed; the numbers are part of the checkpoint format and never change.
enum class RngStream : std::uint64_t { kLoraInit = 1, kShuffle = 2, kDropout = 3, kSampling = 4 };

// Draw number `counter` is word counter % 4 of the Philox4x32-10 block with key = seed (low word
// first) and counter = (counter / 4, stream), each as two words, low first. This never changes.
class Rng {
 public:
  Rng(std::uint64_t seed, std::uint64_t stream) : seed_(seed), stream_(stream) {}
  Rng(std::uint64_t seed, RngStream stream) : Rng(seed, static_cast<std::uint64_t>(stream)) {}
  std::uint32_t bits(std::uint64_t counter) const;
  // Uniform in [0, 1) with 24 bits.
  float uniform(std::uint64_t counter) const;
  // Standard normal (Box-Muller of draws 2 * counter and 2 * counter + 1).
  float normal(std::uint64_t counter) const;
  // A permutation of 0 .. n-1 (Fisher-Yates from the last element; the swap of element i uses draws
  // 2 * i and 2 * i + 1). Empty for n <= 0.
  std::vector<std::int64_t> permutation(std::int64_t n) const;

 private:
  std::uint64_t seed_;
  std::uint64_t stream_;
};
// Combines numbers into a stream id (for example module index, step, micro-batch). Not symmetric.
std::uint64_t mix_stream(std::uint64_t a, std::uint64_t b);

}  // namespace ds
