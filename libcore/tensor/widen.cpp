#include "libcore/tensor/widen.h"

#include "kernels/cast.h"

namespace ds {

Tensor widen(const ConstView& data, const ConstView& scale, DType dtype) {
  std::vector<std::int64_t> shape;
  for (int axis = 0; axis < data.rank(); ++axis) shape.push_back(data.extent(axis));
  Tensor result(dtype, shape);
  kernels::CpuContext context(1, kernels::detect_isa());
  const kernels::Cast op{.src = data.reshape({data.rows(), data.cols()}),
                         .scale = scale,
                         .dst = result.view().reshape({data.rows(), data.cols()})};
  kernels::check(op);
  kernels::run(context, op);
  return result;
}

}  // namespace ds
