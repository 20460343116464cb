// Settings of the published checkpoints (reference/model.md section 1).
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace ds::check {

struct PublishedModel {
  const char* name;    // "DeepSeek-V3"
  const char* config;  // JSON; a value that is an array of alternatives is written {"any": [...]}
};
struct PublishedDifference {
  std::string key;
  std::string found;
  std::string expected;
};

// The model whose hidden_size, num_hidden_layers and n_routed_experts `config` has; nullptr when
// there is none.
const PublishedModel* find_published(const nlohmann::json& config);
// Settings that differ, by key. Keys that `config` does not have are no difference.
std::vector<PublishedDifference> compare_published(const PublishedModel& model,
                                                   const nlohmann::json& config);

}  // namespace ds::check
