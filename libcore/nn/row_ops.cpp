#include "libcore/nn/row_ops.h"

#include <cstring>

#include "kernels/elementwise.h"
#include "kernels/expert_permute.h"
#include "kernels/reduce.h"

namespace ds {

void copy_rows(Exec& exec, const ConstView& from, const View& to) {
  exec.device.run(kernels::AddScaled{.x = from, .y = to, .accumulate = false});
}

void gather_rows(Exec& exec, const ConstView& x, const ConstView& index, const View& y) {
  exec.device.run(kernels::GatherRows{.x = x, .index = index, .y = y});
}

void scatter_rows(Exec& exec, const ConstView& x, const ConstView& index, const View& y,
                  bool accumulate) {
  ArenaScope scope(exec.scratch);
  // One row more than x has, zero: what rows without a source read.
  const View padded = exec.scratch.allocate("rows.padded", x.dtype(), {x.rows() + 1, x.cols()});
  copy_rows(exec, x, padded.slice_rows(0, x.rows()));
  std::memset(padded.slice_rows(x.rows(), 1).data(), 0,
              static_cast<std::size_t>(x.cols() * kernels::dtype_size(x.dtype())));
  exec.device.run(kernels::CombineRows{
      .x = padded, .index = index.reshape({y.rows(), 1}), .y = y, .accumulate = accumulate});
}

Tensor row_squared_norms(const WeightRef& weight, DType dtype) {
  Tensor norms(dtype, {weight.data.rows()});
  Device device = Device::cpu(1);
  device.run(kernels::RowSquaredNorm{.x = weight.data, .scale = weight.scale, .y = norms.view()});
  return norms;
}

ConstView index_view(const std::vector<std::int32_t>& values) {
  return ConstView(values.data(), DType::kI32, {static_cast<std::int64_t>(values.size())});
}

}  // namespace ds
