// A checkpoint folder as far as it can be read, for all checks that look at it.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libcore/check/finding.h"
#include "libcore/config/model_config.h"
#include "libcore/io/checkpoint_index.h"

namespace ds::check {

// Opens a folder in Hugging Face layout. Never throws for what is wrong inside its files;
// Error(kIo) when something cannot be read at all.
class CheckpointTarget {
 public:
  // Findings on config.json itself are added (groups architecture and quantisation).
  CheckpointTarget(const std::filesystem::path& folder, Findings& findings);

  const std::filesystem::path& folder() const { return folder_; }
  // FOLDER/NAME as findings spell it.
  std::string path_of(const std::string& name) const { return (folder_ / name).string(); }
  const CheckpointInspection& inspection() const { return inspection_; }
  const std::vector<Checkpoint::Entry>& entries() const { return inspection_.checkpoint.entries(); }
  // config.json as an object; absent when it is missing or no JSON object.
  const std::optional<nlohmann::json>& json() const { return json_; }
  // What parse_model_config made of it, keys it refuses left out; absent when it is of another
  // family or too much is missing.
  const std::optional<ModelConfig>& config() const { return config_; }
  // Whether the index names `tensor` in a file that could not be read: its absence is known.
  bool unreadable(const std::string& tensor) const;

 private:
  std::filesystem::path folder_;
  CheckpointInspection inspection_;
  std::optional<nlohmann::json> json_;
  std::optional<ModelConfig> config_;
};

// Reads config.json of `folder` with findings; what CheckpointTarget does, without the tensors.
std::optional<nlohmann::json> read_config_json(const std::filesystem::path& folder,
                                               Findings& findings);
std::optional<ModelConfig> read_model_config(const nlohmann::json& json, const std::string& file,
                                             Findings& findings);

}  // namespace ds::check
