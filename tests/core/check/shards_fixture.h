// A small sound model in the layout of DeepSeek's inference demo, to be spoilt.
#pragma once

#include <vector>

#include "libcore/config/inference_names.h"
#include "tests/core/check/model_fixture.h"

namespace ds::test {

// The shards of a model, by rank, to be spoilt.
inline std::vector<Model> sound_shards(std::int64_t ranks, bool fp8 = false, TinyModel tiny = {}) {
  const Model whole = sound_model(tiny, fp8);
  const std::int64_t experts = whole.config.at("n_routed_experts");
  std::vector<Model> shards(static_cast<std::size_t>(ranks));
  for (std::int64_t rank = 0; rank < ranks; ++rank) {
    Model& shard = shards[static_cast<std::size_t>(rank)];
    shard.config = whole.config;
    shard.metadata = nullptr;
    shard.index = false;
    for (const auto& [hf, tensor] : whole.tensors) {
      const auto name = to_inference_name(hf);
      REQUIRE_MESSAGE(name.has_value(), hf);
      if (name->expert >= 0 && name->expert / (experts / ranks) != rank) continue;
      std::vector<std::int64_t> shape = tensor.shape;
      if (name->split == InferenceSplit::kRows) shape[0] /= ranks;
      if (name->split == InferenceSplit::kCols) shape[1] /= ranks;
      shard.set(name->name, tensor.dtype, shape, inference_shard_name(rank, ranks));
    }
  }
  return shards;
}

inline void write_shards(const std::filesystem::path& folder, const std::vector<Model>& shards) {
  std::filesystem::remove_all(folder);
  for (const Model& shard : shards) shard.write(folder);
}

}  // namespace ds::test
