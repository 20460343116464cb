// What a conversion will write, known before the first byte is written.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "libcore/io/safetensors.h"
#include "tools/convert/recipe.h"

namespace ds::convert {

// One recipe and where its tensors begin in the file.
struct Job {
  std::shared_ptr<const Recipe> recipe;
  std::vector<std::uint64_t> offsets;
};
// A file of the result. Bytes that neither `start` nor a job writes are zero.
struct OutputFile {
  std::string name;   // plain file name
  std::string start;  // the file's first bytes: container header
  std::vector<Job> jobs;
  std::uint64_t bytes = 0;  // of the whole file
  std::size_t tensors = 0;  // in it
};

// Tensors that are made together and stay in one file.
struct Unit {
  struct Tensor {
    std::string name;
    DType dtype = DType::kF32;
    std::vector<std::int64_t> shape;
  };
  std::vector<Tensor> tensors;
  std::shared_ptr<const Recipe> recipe;
};

// One safetensors file of these units, laid out as the reference's save_file does.
OutputFile plan_safetensors(const std::string& name, const std::vector<Unit>& units,
                            const std::map<std::string, std::string>& metadata);

// --max_shard_size in bytes. Throws Error(kUsage) when it is no size.
std::uint64_t shard_limit(const std::string& max_shard_size);

// A checkpoint in Hugging Face layout: model.safetensors, or model-00001-of-0000N.safetensors and
// their index when the data is more than `max_shard_bytes`. Units are taken in the given order; a
// unit larger than the limit has a file of its own.
struct CheckpointPlan {
  std::vector<OutputFile> files;
  std::string index;  // text of model.safetensors.index.json, empty for a single file
};
CheckpointPlan plan_checkpoint(const std::vector<Unit>& units, std::uint64_t max_shard_bytes);
// The same with the files of a source kept: `file_of` names the file of each unit.
CheckpointPlan plan_checkpoint(const std::vector<Unit>& units,
                               const std::vector<std::string>& file_of);

}  // namespace ds::convert
