// Whole-tensor conversion, for the few small tensors that are kept in another dtype.
#pragma once

#include "libcore/tensor/tensor.h"

namespace ds {

// A copy of `data` (times its FP8 block scales when given) in `dtype`, same shape. Single-threaded.
Tensor widen(const ConstView& data, const ConstView& scale, DType dtype);

}  // namespace ds
