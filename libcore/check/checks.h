// The checks, one function a group. Each adds findings and throws only Error(kIo).
#pragma once

#include <filesystem>

#include "libcore/check/checkpoint_target.h"
#include "libcore/check/finding.h"

namespace ds::check {

// Files, headers, index of a folder.
void check_container(const CheckpointTarget& target, Findings& findings);
// One safetensors file. Returns it when it could be opened.
std::optional<SafetensorsFile> check_shard(const std::filesystem::path& path, Findings& findings);

// The settings of config.json beyond what the parser refuses.
void check_config(const nlohmann::json& json, const ModelConfig& config, const std::string& file,
                  Findings& findings);
// quantization_config of config.json alone.
void check_quantisation_config(const nlohmann::json& json, const std::string& file,
                               Findings& findings);

class TensorSurvey;
// The tensors against config.json; `survey` is of this target.
void check_architecture(const CheckpointTarget& target, const TensorSurvey& survey,
                        Findings& findings);
// FP8 weights, scales, quantization_config against the tensors, from headers.
void check_quantisation(const CheckpointTarget& target, const TensorSurvey& survey,
                        Findings& findings);

// tokenizer.json, tokenizer_config.json, special_tokens_map.json, generation_config.json and the
// chat template of a folder; `config` and `model` of its config.json may be null.
void check_tokenizer(const std::filesystem::path& folder, const nlohmann::json* config,
                     const ModelConfig* model, Findings& findings);

// The same files' fields that encoding does not need: what other loaders make of them.
void check_tokenizer_fields(const std::filesystem::path& folder, const ModelConfig* model,
                            Findings& findings);

// An adapter folder, against `base` when it is known; with `deep` its values too.
struct AdapterSize {
  std::uint64_t tensors = 0;
  std::uint64_t bytes = 0;
};
AdapterSize check_adapter(const std::filesystem::path& folder, const ModelConfig* base, bool deep,
                          Findings& findings);

struct DeepOptions;
// All of the above that apply; with `deep` the data is read too.
void check_checkpoint(const CheckpointTarget& target, Findings& findings,
                      const DeepOptions* deep = nullptr);

}  // namespace ds::check
