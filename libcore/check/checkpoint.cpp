#include <optional>

#include "libcore/check/checks.h"
#include "libcore/check/deep.h"
#include "libcore/check/expected_tensors.h"
#include "libcore/check/reconcile.h"

namespace ds::check {

void check_checkpoint(const CheckpointTarget& target, Findings& findings, const DeepOptions* deep) {
  check_container(target, findings);
  if (!target.config() || target.entries().empty()) return;
  std::optional<ExpectedTensors> expected(*target.config());
  std::optional<TensorSurvey> survey;
  survey.emplace(*expected, target.entries());
  if (const std::optional<ModelConfig> config = reconcile(target, *survey, findings)) {
    survey.reset();
    expected.emplace(*config);
    survey.emplace(*expected, target.entries());
  }
  check_architecture(target, *survey, findings);
  check_quantisation(target, *survey, findings);
  if (deep != nullptr) check_data(target, *survey, *deep, findings);
}

}  // namespace ds::check
