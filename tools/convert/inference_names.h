// Names of DeepSeek's own inference layout (reference/formats.md section 6).
#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace ds::convert {

// How a tensor is shared out among the ranks.
enum class Split {
  kRows,        // dimension 0
  kCols,        // dimension 1
  kReplicated,  // whole in every shard
  kExpert,      // a routed expert: whole in one shard
};
struct InferenceName {
  std::string name;
  Split split = Split::kReplicated;
  std::int64_t expert = -1;  // of a routed expert
};

// "model.layers.3.mlp.experts.7.gate_proj.weight_scale_inv" -> "layers.3.ffn.experts.7.w1.scale",
// and back. Part by part: nothing else in a name is touched. Empty for a name the layout has not.
std::optional<InferenceName> to_inference_name(std::string_view hf);
std::optional<InferenceName> to_hf_name(std::string_view inference);

}  // namespace ds::convert
