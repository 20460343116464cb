// The checkpoint a conversion reads.
#pragma once

#include <cstdint>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "libcore/cli/run.h"
#include "libcore/config/model_config.h"
#include "libcore/io/checkpoint_index.h"

namespace ds::convert {

struct Source {
  std::filesystem::path folder;
  ModelConfig config;
  nlohmann::ordered_json json;  // config.json
  Checkpoint checkpoint;
};
// `name` as --model takes it. Warnings of the checkpoint go to `run`. Throws what
// load_model_config, find_model and Checkpoint::open throw.
Source open_source(const std::string& name, cli::Run& run);

// Name, size and time of every file: changes when one of them does.
std::string identity_of(const std::vector<const SafetensorsFile*>& files);
std::string identity_of(const Checkpoint& checkpoint);

// N of "model.layers.N.", -1 for other names.
std::int64_t layer_of(std::string_view tensor);
// Belongs to a multi-token-prediction layer.
bool is_mtp(std::string_view tensor, const ModelConfig& config);
inline constexpr std::string_view kScaleSuffix = "_scale_inv";
// The weight a scale's name belongs to, empty for other names.
std::string_view weight_of_scale(std::string_view tensor);
// F32, F64, BF16 or F16.
bool is_wide(DType dtype);
// What a change of dtype concerns: weights and biases, not the router's correction bias, which
// stays F32, nor anything unknown.
bool is_parameter(std::string_view tensor);
// Whether weights of this name are FP8 in FP8 checkpoints of this family (reference/model.md
// section 7): the projections, never router, embeddings, head, norms, eh_proj.
bool is_fp8_kind(const TensorInfo& tensor);

}  // namespace ds::convert
