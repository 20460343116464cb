// Which weights a merge changes, replaces, converts and copies.
#pragma once

#include "tools/convert/adapter_folder.h"
#include "tools/convert/merge.h"
#include "tools/convert/merge_recipe.h"
#include "tools/convert/source.h"

namespace ds::convert {

struct MergePlan {
  OutputPlan output;
  std::size_t changed = 0;   // weights with an update that is not zero
  std::size_t zero = 0;      // with one that is
  std::size_t replaced = 0;  // whole weights of the adapter
  std::size_t other = 0;     // tensors that the adapter does not name
};

// Under `--dtype keep` every tensor keeps its dtype and its bytes where nothing changes it. bf16
// and f32: as `weights --to` does, changed weights summed before they are rounded. fp8: the
// projections become FP8. `source`, `adapter` and `report` must outlive the plan. Throws
// Error(kBadInput) for a weight that the model lacks or has in another shape.
MergePlan plan_merge(const Source& source, const AdapterFolder& adapter,
                     const MergeSettings& settings, MergeReport& report, cli::Run& run);

}  // namespace ds::convert
