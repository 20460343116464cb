// PEFT adapter folders: adapter_config.json and adapter_model.safetensors (reference/formats.md 7).
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "libcore/config/lora_config.h"
#include "libcore/config/model_config.h"
#include "libcore/nn/parameter.h"

namespace ds {

// Writes both files atomically (the tensors first). Keys are "base_model.model." + parameter name,
// F32, per-expert 2-D. Embedding A, kept [vocab, r] in memory, is written [r, vocab]. Throws
// Error(kFindings) naming a parameter that is not finite (then nothing is written), Error(kIo), and
// what adapter_config_text throws.
void save_adapter(const std::filesystem::path& folder, const LoraConfig& lora,
                  const std::vector<LoraTarget>& targets, const ModelConfig& model,
                  const std::vector<Parameter*>& parameters);

// Reads FOLDER/adapter_model.safetensors (or the first known older name: named and refused if .bin)
// into the parameters' values. Accepts F32, BF16, F16, per-expert keys and the fused-expert layout
// of transformers 5 (converted). Throws Error(kBadInput): nothing matches (with the likely prefix
// problem), some keys match nothing (listed), a parameter has no key, wrong shape, A without B,
// non-finite values, modules_to_save weights.
void load_adapter(const std::filesystem::path& folder, const LoraConfig& lora,
                  const std::vector<Parameter*>& parameters);

}  // namespace ds
