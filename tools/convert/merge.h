// deepseek-convert merge: a model with an adapter's changes in its weights.
#pragma once

#include "libcore/cli/run.h"
#include "tools/convert/output_folder.h"

namespace ds::convert {

struct MergeSettings {
  std::string model;
  std::string adapter;
  OutputSettings out;
  std::string dtype = "keep";
  std::string max_shard_size;  // empty: the files of the model
};

void run_merge(const MergeSettings& settings, cli::Run& run);

}  // namespace ds::convert
