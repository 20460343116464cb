// Moving rows about: what the model does between its layers.
#pragma once

#include <cstdint>
#include <vector>

#include "libcore/nn/exec.h"
#include "libcore/nn/linear.h"

namespace ds {

// to = from (dtypes may differ).
void copy_rows(Exec& exec, const ConstView& from, const View& to);
// y[i] = x[index[i]].
void gather_rows(Exec& exec, const ConstView& x, const ConstView& index, const View& y);
// y[index_of_row] (+)= x of that row: `index` [rows of y] holds a row of x, or x.rows() for a row
// that gets nothing (zero, unless accumulate).
void scatter_rows(Exec& exec, const ConstView& x, const ConstView& index, const View& y,
                  bool accumulate);
// Squared L2 norm of every row of a weight, single-threaded (once, when an adapter is attached).
Tensor row_squared_norms(const WeightRef& weight, DType dtype);
// View of a vector of row numbers.
ConstView index_view(const std::vector<std::int32_t>& values);

}  // namespace ds
