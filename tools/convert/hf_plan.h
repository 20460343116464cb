// Hugging Face layout to Hugging Face layout: another dtype, FP8, or files of another size.
#pragma once

#include "tools/convert/output_folder.h"
#include "tools/convert/settings.h"
#include "tools/convert/source.h"

namespace ds::convert {

// --to bf16, f16, f32: FP8 weights times their scales, which disappear; other floating-point
// tensors named *.weight become the dtype too; the correction bias and everything else stays.
// --to fp8: the projections are quantised; FP8 weights keep their codes unless their scales change.
// --to hf: everything as it is. MTP layers go with --mtp drop. config.json follows, side files are
// copied. Throws Error(kBadInput) for an FP8 tensor without a scale or with a wrong one and for a
// scale without an FP8 tensor, all of them named.
OutputPlan plan_hf(const Source& source, const WeightsSettings& settings, cli::Run& run);

// Adds config.json, the side files of `folder` and the index.
void add_texts(OutputPlan& plan, const nlohmann::ordered_json& config,
               const std::filesystem::path& folder, const CheckpointPlan& files);

}  // namespace ds::convert
