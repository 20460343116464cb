// Sizes of config.json against the shapes of a checkpoint's tensors.
#pragma once

#include "libcore/check/checkpoint_target.h"
#include "libcore/check/finding.h"
#include "libcore/config/model_config.h"

namespace ds::check {

// Adds a finding for each size that the tensors contradict (all of them in the same way), and
// returns the config with the sizes that the tensors have: what is compared with it afterwards
// shows the other mistakes only. `target` has a config and tensors.
ModelConfig reconcile(const CheckpointTarget& target, Findings& findings);

}  // namespace ds::check
