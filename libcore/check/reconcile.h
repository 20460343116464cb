// Sizes of config.json against the shapes of a checkpoint's tensors.
#pragma once

#include <optional>

#include "libcore/check/checkpoint_target.h"
#include "libcore/check/expected_tensors.h"
#include "libcore/check/finding.h"
#include "libcore/config/model_config.h"

namespace ds::check {

// Adds a finding for each size that the tensors contradict (all of them in the same way). Returns
// the config with the sizes that the tensors have, nothing when they contradict none: what is
// compared with it afterwards shows the other mistakes only. `target` has a config and tensors,
// `survey` is of both.
std::optional<ModelConfig> reconcile(const CheckpointTarget& target, const TensorSurvey& survey,
                                     Findings& findings);

}  // namespace ds::check
