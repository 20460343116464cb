#include "libcore/nn/row_ops.h"

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
