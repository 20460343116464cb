#include "libcore/nn/embedding.h"

#include "kernels/embedding.h"
#include "kernels/gemm.h"

namespace ds {

using kernels::Gemm;
using kernels::GemmProblem;

namespace {
bool is_trained(const Parameter* parameter) {
  return parameter != nullptr && parameter->takes_gradient();
}
}  // namespace

bool Embedding::trainable() const {
  return is_trained(parameter) || (lora && (is_trained(lora->a) || is_trained(lora->b)));
}

void Embedding::forward(Exec& exec, const ConstView& ids, const View& y,
                        EmbeddingSaved& saved) const {
  const OpScope part(exec.device, "embedding");
  exec.device.run(kernels::EmbeddingForward{.table = table.data, .ids = ids, .y = y});
  if (!lora) return;
  const std::int64_t r = lora->a->value.shape()[1];
  const View p = exec.saved.allocate("embedding.p", exec.statistics(), {y.rows(), r});
  exec.device.run(kernels::EmbeddingForward{.table = lora->a->value.view(), .ids = ids, .y = p});
  saved.p = p;
  const GemmProblem up{.a = p,
                       .b = lora->b->value.view(),
                       .c = y,
                       .trans_b = true,
                       .alpha = lora->scaling,
                       .beta = 1.0};
  exec.device.run(Gemm{{&up, 1}});
}

void Embedding::backward(Exec& exec, const ConstView& ids, const ConstView& dy,
                         const EmbeddingSaved& saved) const {
  const OpScope part(exec.device, "embedding");
  const OpScope backward(exec.device, "backward");
  if (is_trained(parameter)) {
    exec.device.run(
        kernels::EmbeddingBackward{.dy = dy, .ids = ids, .d_table = parameter->grad.view()});
    parameter->touched = true;
  }
  if (!lora) return;
  ArenaScope scope(exec.scratch);
  if (is_trained(lora->b)) {
    const GemmProblem db{.a = dy,
                         .b = saved.p,
                         .c = lora->b->grad.view(),
                         .trans_a = true,
                         .alpha = lora->scaling,
                         .beta = 1.0};
    exec.device.run(Gemm{{&db, 1}});
    lora->b->touched = true;
  }
  if (is_trained(lora->a)) {
    const View dp =
        exec.scratch.allocate("embedding.dp", exec.statistics(), {dy.rows(), saved.p.cols()});
    const GemmProblem down{.a = dy, .b = lora->b->value.view(), .c = dp, .alpha = lora->scaling};
    exec.device.run(Gemm{{&down, 1}});
    exec.device.run(
        kernels::EmbeddingBackward{.dy = dp, .ids = ids, .d_table = lora->a->grad.view()});
    lora->a->touched = true;
  }
}

}  // namespace ds
