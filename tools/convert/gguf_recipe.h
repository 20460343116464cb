// Recipes and matrices that only GGUF needs.
#pragma once

#include <vector>

#include "libcore/io/gguf.h"
#include "tools/convert/matrix.h"

namespace ds::convert {

// Parts one behind another in one tensor: the experts of a stack, the heads of a projection. Each
// part is made on its own, so no more than a piece of one is ever held.
struct RecipePart {
  std::shared_ptr<const Recipe> recipe;
  std::uint64_t bytes = 0;
};
std::shared_ptr<const Recipe> concat_recipe(std::vector<RecipePart> parts);

// Rows become columns. Meant for blocks of a few hundred kilobytes: reading any rows reads all of
// `block`.
MatrixPtr transposed_matrix(MatrixPtr block);

// The matrix in Q8_0 (cols a multiple of 32). Notes the largest change; close() refuses values that
// are not finite and blocks whose scale is beyond f16.
std::shared_ptr<const Recipe> q8_0_recipe(MatrixPtr matrix);

// A tensor of a GGUF file (F32, F16, BF16, Q8_0) as rows of its last dimension. The file must
// outlive it. Throws Error(kBadInput) for another type.
MatrixPtr gguf_matrix(const GgufModel::Entry& tensor);
// `bytes` of its data from `offset` on, as they are.
std::shared_ptr<const Recipe> gguf_copy_recipe(const GgufModel::Entry& tensor, std::uint64_t offset,
                                               std::uint64_t bytes);

}  // namespace ds::convert
