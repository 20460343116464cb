// The frozen base weights, as they lie on disk.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/io/checkpoint_index.h"
#include "libcore/nn/linear.h"

namespace ds {

// Hands out views of mapped tensors; only what cannot be used in place (misaligned data, norms and
// biases that are needed in f32) is copied. Resident memory therefore does not grow with the
// checkpoint. In F64 (gradient checks) everything is widened into memory.
class WeightStore {
 public:
  // `compute` is the dtype activations will have.
  WeightStore(Checkpoint checkpoint, DType compute);

  // A matrix [rows, cols] with its block scales. Throws Error(kBadInput) naming the file, the
  // tensor, the shape or dtype found and the one needed; a missing tensor or FP8 scale is named
  // too.
  WeightRef matrix(const std::string& name, std::int64_t rows, std::int64_t cols);
  // A vector [size] widened to the statistics dtype.
  ConstView vector(const std::string& name, std::int64_t size);
  // Matrix or vector widened to the compute dtype's statistics dtype, as a new owning tensor.
  Tensor widened(const std::string& name, const std::vector<std::int64_t>& shape);
  bool has(std::string_view name) const;
  // Whether `data` lies in a mapped file (and not in a copy that was made).
  bool maps(const void* data) const;
  // Reads every tensor of the model and says where the first NaN or infinity is ("FILE: tensor 'X'
  // is not finite at [row, column]"); empty when all are finite. For after something went wrong: it
  // takes as long as reading the checkpoint.
  std::string find_non_finite() const;
  const Checkpoint& checkpoint() const { return checkpoint_; }
  // Bytes held in memory beside the mapping.
  std::int64_t resident_bytes() const;

 private:
  const Checkpoint::Entry require(const std::string& name,
                                  const std::vector<std::int64_t>& shape) const;
  ConstView view_of(const Checkpoint::Entry& entry);
  ConstView scale_of(const std::string& name, const Checkpoint::Entry& weight);

  Checkpoint checkpoint_;
  DType compute_;
  std::vector<std::unique_ptr<Tensor>> owned_;
};

}  // namespace ds
