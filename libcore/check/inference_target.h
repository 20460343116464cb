// A folder in the layout of DeepSeek's inference demo: model{rank}-mp{N}.safetensors
// (reference/formats.md section 6).
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "libcore/check/deep.h"
#include "libcore/check/finding.h"
#include "libcore/config/model_config.h"
#include "libcore/io/safetensors.h"

namespace ds::check {

class InferenceTarget {
 public:
  // Findings on files, headers and config.json are added. Of several sets the one with the most
  // files is taken. Throws Error(kIo).
  InferenceTarget(const std::filesystem::path& folder, Findings& findings);

  const std::filesystem::path& folder() const { return folder_; }
  std::int64_t ranks() const { return ranks_; }
  // By rank; nullptr for one that is absent or could not be read.
  const std::vector<std::unique_ptr<SafetensorsFile>>& shards() const { return shards_; }
  // Whether every shard was read: what is absent then is missing indeed.
  bool complete() const { return complete_; }
  // config.json when it is one in Hugging Face form.
  const std::optional<nlohmann::json>& json() const { return json_; }
  // Out of config.json in either form, without prediction layers.
  const std::optional<ModelConfig>& config() const { return config_; }

 private:
  void find_shards(Findings& findings);
  void read_config(Findings& findings);
  std::filesystem::path folder_;
  std::int64_t ranks_ = 0;
  std::vector<std::unique_ptr<SafetensorsFile>> shards_;
  bool complete_ = true;
  std::optional<nlohmann::json> json_;
  std::optional<ModelConfig> config_;
};

// The tensors of all ranks against each other and against the config; with `deep` their data.
void check_inference(const InferenceTarget& target, const DeepOptions* deep, Findings& findings);

// config.json of the demo ("dim", "n_layers", ...) in the keys of Hugging Face; keys that are
// absent have the demo's defaults (inference/model.py, ModelArgs).
nlohmann::json from_demo_config(const nlohmann::json& demo);
// The way there: what generate.py takes with --config. max_seq_len is 16,384, or what the model has
// where that is less; with YaRN it is above original_seq_len, without YaRN equal to it, which is
// how the demo tells. Lost: rms_norm_eps, attention_bias, norm_topk_prob (the demo has
// scoring_func's).
nlohmann::ordered_json to_demo_config(const ModelConfig& config, bool fp8, bool ue8m0);

}  // namespace ds::check
