// Hugging Face layout to the shards of DeepSeek's inference demo, and back
// (reference/formats.md section 6).
#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "tools/convert/output_folder.h"
#include "tools/convert/settings.h"
#include "tools/convert/source.h"

namespace ds::convert {

// model{rank}-mp{mp}.safetensors of every rank; config.json and the side files as well, so that the
// way back needs nothing else. MTP layers are dropped, the layout has no place for them. Throws
// Error(kBadInput) for a tensor that cannot be cut into `mp` (naming it and the largest mp that
// can be), or that the layout has no name for.
OutputPlan plan_to_inference(const Source& source, const WeightsSettings& settings, cli::Run& run);

struct InferenceSource {
  std::filesystem::path folder;
  std::vector<std::unique_ptr<SafetensorsFile>> shards;  // by rank
};
// Throws Error(kBadInput) for a missing or doubtful set of shards.
InferenceSource open_inference(const std::filesystem::path& folder);
// A tensor that is whole in every shard must be the same in all: compared while it is copied.
OutputPlan plan_from_inference(const InferenceSource& source, const WeightsSettings& settings,
                               cli::Run& run);

}  // namespace ds::convert
