#include "libcore/check/checks.h"
#include "libcore/check/deep.h"
#include "libcore/check/expected_tensors.h"
#include "libcore/check/reconcile.h"

namespace ds::check {

void check_checkpoint(const CheckpointTarget& target, Findings& findings, const DeepOptions* deep) {
  check_container(target, findings);
  if (!target.config() || target.entries().empty()) return;
  const ModelConfig config = reconcile(target, findings);
  const ExpectedTensors expected(config);
  const TensorSurvey survey(expected, target.entries());
  check_architecture(target, survey, findings);
  check_quantisation(target, survey, findings);
  if (deep != nullptr) check_data(target, survey, *deep, findings);
}

}  // namespace ds::check
