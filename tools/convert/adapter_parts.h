// Tensors that are put together from adapter factors.
#pragma once

#include <memory>
#include <vector>

#include "libcore/model/adapter_sources.h"
#include "tools/convert/recipe.h"

namespace ds::convert {

// Elements (i, j) of `source`, times `factor`, at [row + i][col + j * col_step] of the tensor.
struct FactorPart {
  AdapterSource source;
  std::int64_t rows = 0, cols = 0;
  std::int64_t row = 0, col = 0, col_step = 1;
  float factor = 1.0f;
};

// A tensor [rows, cols] in `dtype` (F32, BF16, F16): its parts, zero elsewhere. `file` must outlive
// it. A value that does not fit F16 is refused in close().
std::shared_ptr<const Recipe> parts_recipe(const SafetensorsFile& file, std::string name,
                                           std::int64_t rows, std::int64_t cols, DType dtype,
                                           std::vector<FactorPart> parts);

}  // namespace ds::convert
