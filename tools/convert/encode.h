// Recipes that every kind of conversion shares.
#pragma once

#include "tools/convert/matrix.h"

namespace ds::convert {

// The tensor's bytes as they are.
std::shared_ptr<const Recipe> copy_recipe(const Checkpoint::Entry& tensor);
// Rows and columns of it: elements [row, row + rows) x [col, col + cols) of the tensor seen as a
// matrix.
std::shared_ptr<const Recipe> copy_recipe(const Checkpoint::Entry& tensor, std::int64_t row,
                                          std::int64_t rows, std::int64_t col, std::int64_t cols);

// The matrix in `dtype` (F32, BF16, F16), rounded once from its f32 values. close() refuses values
// beyond f16 unless `allow_overflow` (they then become +-65504 and are counted), and notes NaN and
// infinity of the input, which stay what they are.
std::shared_ptr<const Recipe> cast_recipe(MatrixPtr matrix, DType dtype, bool allow_overflow);

enum class ScaleFormat { kF32, kUe8m0 };
// FP8 codes in blocks of 128 x 128 and their multipliers (reference/formats.md section 3): tensor 0
// of the recipe is the codes, tensor 1 the scales [ceil(rows / 128), ceil(cols / 128)] in
// `scale_dtype`, F32 or (kUe8m0 only) F8_E8M0. Notes the largest change. Values that are not finite
// are refused.
std::shared_ptr<const Recipe> quantise_recipe(MatrixPtr matrix, ScaleFormat format,
                                              DType scale_dtype = DType::kF32);
// The same with the multipliers of a stored scale tensor of the right shape, whose bytes become
// tensor 1.
std::shared_ptr<const Recipe> quantise_recipe(MatrixPtr matrix, const Checkpoint::Entry& scale);

// A scale tensor as F32, or as F8_E8M0 when its values are powers of two.
std::shared_ptr<const Recipe> scale_recipe(const Checkpoint::Entry& scale, DType dtype);

}  // namespace ds::convert
