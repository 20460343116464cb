// Initial values of adapters (reference/training.md section 1).
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "libcore/nn/parameter.h"

namespace ds {

// Fills every LoRA A and B as PEFT draws them for init_lora_weights: "true" A ~ U(-1/sqrt(in),
// 1/sqrt(in)), B = 0; "gaussian" A ~ N(0, 1/r) (standard deviation), B = 0; "false" A as for "true"
// and B ~ U(-1/sqrt(r), 1/sqrt(r)). Embeddings: A = 0 and B ~ N(0, 1); both N(0, 1) for "false".
// Other roles are left alone (DoRA magnitudes come from the base weights). A value depends on seed,
// the parameter's index and its own place only, not on other parameters. Throws Error(kUsage) for
// another `init`.
void init_lora(const std::vector<Parameter*>& parameters, const std::string& init,
               std::uint64_t seed);

}  // namespace ds
