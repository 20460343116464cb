// The modules that an adapter file itself speaks of, when its base model is not at hand.
#pragma once

#include <vector>

#include "libcore/config/lora_config.h"
#include "libcore/io/safetensors.h"

namespace ds::convert {

// One entry for every module with adapter tensors, from their names and shapes, layer by layer;
// for fused expert tensors every expert's three projections. Throws Error(kBadInput) when the
// number of fused experts does not follow from shapes and ranks.
std::vector<ModuleInfo> modules_of_file(const SafetensorsFile& file, const LoraConfig& lora);

}  // namespace ds::convert
