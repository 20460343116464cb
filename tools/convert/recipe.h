// How the bytes of a conversion's result are made, piece by piece.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "libcore/base/mapped_reader.h"
#include "libcore/tensor/caster.h"

namespace ds::convert {

// Largest piece of a result that a worker holds, unless one row is larger: with the input it is
// made from, small enough for a core's own cache.
inline constexpr std::uint64_t kPieceBytes = 256U << 10U;

// What a worker lends a recipe. One thread uses it at a time.
class Workbench {
 public:
  Caster& caster() { return caster_; }
  // Memory of at least `bytes`, aligned to 64. It stays until the same `slot` is asked for more;
  // contents are then lost.
  std::byte* buffer(std::size_t slot, std::size_t bytes);
  // Bytes [offset, offset + bytes) of the file, read into buffer `slot`. Throws what
  // MappedReader::read throws.
  const std::byte* read(const MappedFile& file, std::uint64_t offset, std::size_t bytes,
                        std::size_t slot);

 private:
  Caster caster_{1};
  MappedReader reader_;
  std::vector<Tensor> buffers_;
};

// Takes the bytes of a piece: `tensor` counts the tensors of the recipe, `offset` is within it.
class PieceSink {
 public:
  virtual ~PieceSink() = default;
  virtual void write(std::size_t tensor, std::uint64_t offset, const void* data,
                     std::size_t bytes) = 0;
};

// What a recipe met, summed over its pieces.
struct Tally {
  std::uint64_t overflowed = 0;    // values beyond f16, now infinite
  std::uint64_t non_finite = 0;    // NaN or infinity in the input
  double max_abs_error = 0.0;      // largest change by rounding to FP8 or by a merge's rounding
  std::vector<std::string> notes;  // one sentence each, naming the tensor
};

// Makes one tensor of the result, or a few that are made together (an FP8 weight and its scales).
// make() is called from several threads, each piece once, in any order; the pieces together write
// every byte of the tensors.
class Recipe {
 public:
  virtual ~Recipe() = default;
  virtual std::size_t pieces() const = 0;
  virtual void make(std::size_t piece, Workbench& bench, PieceSink& sink) const = 0;
  // Tells the kernel that the input of `piece` is needed soon. May do nothing.
  virtual void prefetch(std::size_t /*piece*/) const {}
  // Bytes of input that all pieces together read.
  virtual std::uint64_t input_bytes() const = 0;
  // After the last piece: adds what was met; throws Error(kBadInput) when the result must not be
  // kept.
  virtual void close(Tally& /*tally*/) const {}
};

}  // namespace ds::convert
