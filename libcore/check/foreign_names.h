// Tensor names of quantisations other than block-scaled FP8.
#pragma once

#include <string_view>

namespace ds::check {

// AWQ, GPTQ, compressed-tensors, bitsandbytes, ModelOpt, DeepSeek's inference layout: by the
// ending of a tensor's name.
bool is_foreign_quantisation(std::string_view name);

}  // namespace ds::check
