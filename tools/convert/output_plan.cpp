#include "tools/convert/output_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/io/safetensors_header.h"

namespace ds::convert {

namespace {

std::uint64_t bytes_of(const Unit::Tensor& tensor) {
  std::uint64_t bytes = 0;
  bool whole = false;
  if (!tensor_bytes(tensor.dtype, tensor.shape, bytes, whole) || !whole) {
    throw Error(ExitCode::kInternal,
                fmt::format("tensor {}: the shape {} of {} has no size", tensor.name,
                            shape_text(tensor.shape), dtype_name(tensor.dtype)));
  }
  return bytes;
}

std::uint64_t bytes_of(const Unit& unit) {
  std::uint64_t bytes = 0;
  for (const Unit::Tensor& tensor : unit.tensors) bytes += bytes_of(tensor);
  return bytes;
}

// Files of units -> files of bytes.
CheckpointPlan lay_out(const std::vector<std::vector<const Unit*>>& files,
                       const std::vector<std::string>& names) {
  CheckpointPlan plan;
  std::map<std::string, std::string> map;
  std::uint64_t total = 0;
  for (std::size_t i = 0; i < files.size(); ++i) {
    std::vector<Unit> units;
    for (const Unit* unit : files[i]) {
      units.push_back(*unit);
      for (const Unit::Tensor& tensor : unit->tensors) {
        map[tensor.name] = names[i];
        total += bytes_of(tensor);
      }
    }
    plan.files.push_back(plan_safetensors(names[i], units, {{"format", "pt"}}));
  }
  if (files.size() > 1 || (files.size() == 1 && names[0] != "model.safetensors")) {
    plan.index = shard_index_text(map, {{"total_size", total}});
  }
  return plan;
}

}  // namespace

OutputFile plan_safetensors(const std::string& name, const std::vector<Unit>& units,
                            const std::map<std::string, std::string>& metadata) {
  std::vector<TensorToWrite> tensors;
  for (const Unit& unit : units) {
    for (const Unit::Tensor& tensor : unit.tensors) {
      tensors.push_back({tensor.name, tensor.dtype, tensor.shape, nullptr});
    }
  }
  OutputFile file;
  file.name = name;
  file.tensors = tensors.size();
  SafetensorsLayout layout = layout_safetensors(name, tensors, metadata);
  std::unordered_map<std::string_view, std::uint64_t> offsets;
  std::uint64_t offset = layout.start.size();
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    offsets[tensors[i].name] = offset;
    offset += layout.sizes[i];
  }
  file.start = std::move(layout.start);
  file.bytes = offset;
  for (const Unit& unit : units) {
    Job job{unit.recipe, {}};
    for (const Unit::Tensor& tensor : unit.tensors) job.offsets.push_back(offsets.at(tensor.name));
    file.jobs.push_back(std::move(job));
  }
  // Written front to back.
  std::stable_sort(file.jobs.begin(), file.jobs.end(), [](const Job& a, const Job& b) {
    return a.offsets.front() < b.offsets.front();
  });
  return file;
}

std::uint64_t shard_limit(const std::string& max_shard_size) {
  const auto limit = parse_size(max_shard_size);
  if (!limit || *limit == 0) {
    throw Error(ExitCode::kUsage, fmt::format("--max_shard_size {} is no size, such as 5GB is",
                                              quote_text(max_shard_size)));
  }
  return *limit;
}

CheckpointPlan plan_checkpoint(const std::vector<Unit>& units, std::uint64_t max_shard_bytes) {
  std::vector<std::vector<const Unit*>> files;
  std::uint64_t held = 0;
  for (const Unit& unit : units) {
    const std::uint64_t bytes = bytes_of(unit);
    const bool fits = bytes <= max_shard_bytes && held <= max_shard_bytes - bytes;
    if (files.empty() || (held > 0 && !fits)) {
      files.emplace_back();
      held = 0;
    }
    files.back().push_back(&unit);
    held += bytes;
  }
  std::vector<std::string> names;
  for (std::size_t i = 0; i < files.size(); ++i) {
    names.push_back(files.size() == 1
                        ? "model.safetensors"
                        : fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, files.size()));
  }
  return lay_out(files, names);
}

CheckpointPlan plan_checkpoint(const std::vector<Unit>& units,
                               const std::vector<std::string>& file_of) {
  std::map<std::string, std::vector<const Unit*>> by_file;
  for (std::size_t i = 0; i < units.size(); ++i) by_file[file_of[i]].push_back(&units[i]);
  std::vector<std::vector<const Unit*>> files;
  std::vector<std::string> names;
  for (auto& [name, members] : by_file) {
    names.push_back(name);
    files.push_back(std::move(members));
  }
  return lay_out(files, names);
}

}  // namespace ds::convert
