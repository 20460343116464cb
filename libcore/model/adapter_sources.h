// Where each adapter parameter's values lie in an adapter file: by name and shape, without a model.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "libcore/config/lora_config.h"
#include "libcore/io/safetensors.h"

namespace ds {

inline constexpr std::string_view kAdapterPrefix = "base_model.model.";
inline constexpr const char* kAdapterTensorFile = "adapter_model.safetensors";
inline constexpr const char* kAdapterConfigFile = "adapter_config.json";

// FOLDER/adapter_model.safetensors. Throws Error(kBadInput) when it is not there (an older pickle
// is named and refused; a folder below that holds the file is offered) or is no safetensors file.
SafetensorsFile open_adapter_file(const std::filesystem::path& folder);

// A tensor that an adapter of these settings consists of.
struct AdapterSlot {
  std::string name;                 // PEFT's name without kAdapterPrefix, e.g.
                                    // "model.layers.0.self_attn.q_a_proj.lora_A.weight"
  std::vector<std::int64_t> shape;  // lora_A [r, in], lora_B [out, r], magnitude [out]; of an
                                    // embedding A is [vocab, r] and B [hidden, r]
};
// A, B and, with use_dora, the magnitude of every target, in that order.
std::vector<AdapterSlot> adapter_slots(const std::vector<LoraTarget>& targets, bool use_dora);

// Element (i, j) of a parameter is element first + i * row_step + j * col_step of the file's tensor
// (a 1-D parameter is one row). Covers plain tensors, the transposed embedding A and slices of
// fused expert tensors.
struct AdapterSource {
  const TensorInfo* tensor = nullptr;  // null: not in the file
  std::int64_t first = 0;
  std::int64_t row_step = 0;
  std::int64_t col_step = 1;
};

// A tensor of the file that takes the place of one of the model's.
struct WholeWeight {
  std::string name;  // in the model: "lm_head.weight"
  const TensorInfo* tensor = nullptr;
  bool copy = false;  // stored beside the LoRA of the same module, as peft does for the embedding
};

// One source per slot, same order, every element inside its tensor. Whole weights of the model are
// added to `whole`; without it the copy beside an adapted embedding is left out and every other one
// is refused. Throws Error(kBadInput) for each case of load_adapter but non-finite values.
std::vector<AdapterSource> match_adapter(const SafetensorsFile& file, const LoraConfig& lora,
                                         const std::vector<AdapterSlot>& slots,
                                         std::vector<WholeWeight>* whole = nullptr);
// Throws Error(kBadInput) naming the first tensor and element that is not finite.
void expect_finite(const SafetensorsFile& file, const std::vector<AdapterSource>& sources);

// Index of a slot by its name.
using SlotIndex = std::unordered_map<std::string_view, std::size_t>;

// Whether a key (without kAdapterPrefix) is a LoRA over the fused expert parameters of transformers
// 5 (reference/formats.md 7.4): "....mlp.experts.[base_layer.]lora_{A,B}.weight".
bool is_fused_expert_key(std::string_view key);

// Sources of the per-expert slots that the fused tensors `keys` (without kAdapterPrefix) hold.
// Which of the two wrappers is gate_up and which is down is told by their shapes. gate_up of twice
// the slots' rank must be block-diagonal, as peft's conversion writes it; of the same rank it
// is the natively trained form: gate and up share A. Throws Error(kBadInput).
void match_fused_experts(const SafetensorsFile& file, const std::vector<std::string>& keys,
                         const std::vector<AdapterSlot>& slots, const SlotIndex& index,
                         std::vector<AdapterSource>& sources);

// Element `i` of a tensor whose dtype is F32, BF16 or F16 (`data` need not be aligned).
float adapter_value(const std::byte* data, DType dtype, std::int64_t i);

}  // namespace ds
