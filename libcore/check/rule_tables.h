// The tables behind rules(): one a group, each in its own file.
#pragma once

#include <span>

#include "libcore/check/rules.h"

namespace ds::check {

std::span<const Rule> container_rules();
std::span<const Rule> architecture_rules();
std::span<const Rule> quantisation_rules();
std::span<const Rule> tokenizer_rules();  // and template
std::span<const Rule> dataset_rules();
std::span<const Rule> adapter_rules();
std::span<const Rule> compatibility_rules();  // and hardware
std::span<const Rule> gguf_rules();           // of several groups
std::span<const Rule> inference_rules();      // of several groups

}  // namespace ds::check
