// Names of DeepSeek's own inference layout (reference/formats.md section 6).
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>

namespace ds {

// How a tensor is shared out among the ranks.
enum class InferenceSplit {
  kRows,        // dimension 0
  kCols,        // dimension 1
  kReplicated,  // whole in every shard
  kExpert,      // a routed expert: whole in one shard
};
struct InferenceName {
  std::string name;
  InferenceSplit split = InferenceSplit::kReplicated;
  std::int64_t expert = -1;  // of a routed expert
};

// "model.layers.3.mlp.experts.7.gate_proj.weight_scale_inv" -> "layers.3.ffn.experts.7.w1.scale",
// and back. Part by part: nothing else in a name is touched. Empty for a name the layout has not.
std::optional<InferenceName> to_inference_name(std::string_view hf);
std::optional<InferenceName> to_hf_name(std::string_view inference);

// "model3-mp8.safetensors": rank 3 of 8; 0 <= rank < ranks.
struct InferenceShard {
  std::int64_t rank = 0;
  std::int64_t ranks = 0;
};
std::optional<InferenceShard> parse_inference_shard(std::string_view name);
std::string inference_shard_name(std::int64_t rank, std::int64_t ranks);
// Whether the folder holds such a file, and neither model.safetensors nor an index.
bool is_inference_folder(const std::filesystem::path& folder);

}  // namespace ds
