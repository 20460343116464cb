// A matrix of the input, read by rows as f32 wherever its values come from.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "libcore/io/checkpoint_index.h"
#include "tools/convert/recipe.h"

namespace ds::convert {

// Rank 2; a vector is one row, a scalar [1, 1]. Thread-safe.
class Matrix {
 public:
  virtual ~Matrix() = default;
  virtual std::string_view name() const = 0;  // in messages
  virtual std::int64_t rows() const = 0;
  virtual std::int64_t cols() const = 0;
  // Rows [begin, begin + count), row-major, to `out`. Uses no buffer slot of the bench below
  // kMatrixSlots. Throws Error(kBadInput) for a scale that is no finite number.
  virtual void read(std::int64_t begin, std::int64_t count, float* out, Workbench& bench) const = 0;
  // The same in F32, BF16 or F16, rounded once. Contiguous.
  virtual void read_as(std::int64_t begin, std::int64_t count, const View& out,
                       Workbench& bench) const;
  // The same as F32, or as BF16 where that is how they are stored: not copied, and valid until the
  // bench is used for other rows.
  virtual ConstView values(std::int64_t begin, std::int64_t count, Workbench& bench) const;
  // The kernel is told that these rows are needed soon.
  virtual void prefetch(std::int64_t /*begin*/, std::int64_t /*count*/) const {}
  virtual std::uint64_t input_bytes() const = 0;
};
using MatrixPtr = std::shared_ptr<const Matrix>;

// Buffer slots of a recipe are below this, those of matrices from here on.
inline constexpr std::size_t kMatrixSlots = 8;

// A stored tensor (F32, F64, BF16, F16, or F8_E4M3 with `scale`). The checkpoint must outlive it.
// Throws Error(kBadInput) for another dtype, and for a scale that is missing, of the wrong shape or
// dtype (F32, BF16, F8_E8M0, U8 holding E8M0 codes are right). Reads no data yet.
MatrixPtr stored_matrix(const Checkpoint::Entry& tensor, const Checkpoint::Entry& scale);
// What is wrong with the scale of an FP8 tensor, naming both; empty when nothing is. `scale` may be
// null.
std::string scale_problem(const TensorInfo& weight, const TensorInfo* scale);

// Rows [row, row + rows) of a scale tensor (F32, BF16, F8_E8M0, U8 holding E8M0 codes) as F32, in
// buffer slot kMatrixSlots + 1. Throws Error(kBadInput) for one that is no finite number.
ConstView read_scale(const Checkpoint::Entry& scale, std::int64_t row, std::int64_t rows,
                     Workbench& bench);

// Rows [row, row + rows) and columns [col, col + cols) of another matrix.
MatrixPtr sub_matrix(MatrixPtr whole, std::int64_t row, std::int64_t rows, std::int64_t col,
                     std::int64_t cols);

}  // namespace ds::convert
