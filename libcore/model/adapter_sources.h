// Where each adapter parameter's values lie in an adapter file; used by adapter_io.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "libcore/config/lora_config.h"
#include "libcore/io/safetensors.h"
#include "libcore/nn/parameter.h"

namespace ds {

inline constexpr std::string_view kAdapterPrefix = "base_model.model.";

// Element (i, j) of a parameter is element first + i * row_step + j * col_step of the file's tensor
// (a 1-D parameter is one row). Covers plain tensors, the transposed embedding A and slices of
// fused expert tensors.
struct AdapterSource {
  const TensorInfo* tensor = nullptr;  // null: not in the file
  std::int64_t first = 0;
  std::int64_t row_step = 0;
  std::int64_t col_step = 1;
};

// One source per parameter, same order, every element inside its tensor. Throws Error(kBadInput)
// for each case of load_adapter but non-finite values.
std::vector<AdapterSource> match_adapter(const SafetensorsFile& file, const LoraConfig& lora,
                                         const std::vector<Parameter*>& parameters);

// Index of a parameter by its name.
using ParameterIndex = std::unordered_map<std::string_view, std::size_t>;

// Whether a key (without kAdapterPrefix) is a LoRA over the fused expert parameters of transformers
// 5 (reference/formats.md 7.4): "....mlp.experts.[base_layer.]lora_{A,B}.weight".
bool is_fused_expert_key(std::string_view key);

// Sources of the per-expert parameters that the fused tensors `keys` (without kAdapterPrefix) hold.
// Which of the two wrappers is gate_up and which is down is told by their shapes. gate_up of twice
// the parameters' rank must be block-diagonal, as peft's conversion writes it; of the same rank it
// is the natively trained form: gate and up share A. Throws Error(kBadInput).
void match_fused_experts(const SafetensorsFile& file, const std::vector<std::string>& keys,
                         const std::vector<Parameter*>& parameters, const ParameterIndex& index,
                         std::vector<AdapterSource>& sources);

// Element `i` of a tensor whose dtype is F32, BF16 or F16 (`data` need not be aligned).
float adapter_value(const std::byte* data, DType dtype, std::int64_t i);

}  // namespace ds
