// Recipes of weights that an adapter changes.
#pragma once

#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "tools/convert/adapter_folder.h"
#include "tools/convert/encode.h"
#include "tools/convert/merge_change.h"

namespace ds::convert {

// What the merged weights of a run have in common; filled by close().
struct MergeReport {
  std::size_t weights = 0;
  std::string largest_weight;  // the one with the largest change
  Change change;
  std::size_t blocks = 0;       // of FP8 weights
  std::size_t blocks_kept = 0;  // of them with their codes and scales
  // Share of the change that rounding took: |stored - merged| / |merged - base|, both as norms.
  double rounding_lost() const;
  nlohmann::json to_json() const;
  static MergeReport from_json(const nlohmann::json& json);
};

// The changed weight in `dtype` (F32, BF16, F16), summed in f32 and rounded once. close() refuses
// results that are not finite where the base is. `update` and `report` must outlive it.
std::shared_ptr<const Recipe> merge_recipe(MatrixPtr base, const LowRankUpdate& update, DType dtype,
                                           MergeReport& report);

// The changed weight as FP8 codes (tensor 0) and multipliers (tensor 1) in `scale_dtype`: F32, or
// (kUe8m0 only) F8_E8M0 or U8, one byte each. Where `codes` is an FP8 tensor with `scale`, blocks
// whose values do not change keep their codes and multipliers.
std::shared_ptr<const Recipe> merge_fp8_recipe(MatrixPtr base, const LowRankUpdate& update,
                                               ScaleFormat format, const Checkpoint::Entry& codes,
                                               const Checkpoint::Entry& scale, DType scale_dtype,
                                               MergeReport& report);

}  // namespace ds::convert
