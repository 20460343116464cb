// RMSNorm layer.
#pragma once

#include "libcore/nn/exec.h"
#include "libcore/nn/parameter.h"

namespace ds {

struct RmsNorm {
  ConstView weight;  // [dim] statistics dtype
  double eps = 1e-6;
  Parameter* parameter = nullptr;  // full-parameter training; weight views its value

  // y[rows, dim] and rstd[rows].
  void forward(Exec& exec, const ConstView& x, const View& y, const View& rstd) const;
  // dx (+)= ; adds to the weight's gradient when it is trained.
  void backward(Exec& exec, const ConstView& dy, const ConstView& x, const ConstView& rstd,
                const View& dx, bool accumulate_dx) const;
};

}  // namespace ds
