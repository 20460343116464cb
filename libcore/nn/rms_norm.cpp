#include "libcore/nn/rms_norm.h"

#include "kernels/rms_norm.h"

namespace ds {

void RmsNorm::forward(Exec& exec, const ConstView& x, const View& y, const View& rstd) const {
  exec.device.run(
      kernels::RmsNormForward{.x = x, .weight = weight, .y = y, .rstd = rstd, .eps = eps});
}

void RmsNorm::backward(Exec& exec, const ConstView& dy, const ConstView& x, const ConstView& rstd,
                       const View& dx, bool accumulate_dx) const {
  kernels::RmsNormBackward op{
      .dy = dy, .x = x, .weight = weight, .rstd = rstd, .dx = dx, .accumulate_dx = accumulate_dx};
  if (parameter != nullptr && parameter->takes_gradient()) {
    op.dweight = parameter->grad.view();
    parameter->touched = true;
  }
  exec.device.run(op);
}

}  // namespace ds
