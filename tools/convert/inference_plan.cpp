#include "tools/convert/inference_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>

#include "libcore/base/error.h"
#include "libcore/config/inference_names.h"
#include "libcore/io/safetensors_header.h"
#include "tools/convert/config_json.h"
#include "tools/convert/encode.h"
#include "tools/convert/hf_plan.h"

namespace ds::convert {

namespace {

using Split = InferenceSplit;

constexpr std::int64_t kBlock = 128;

// Buffers that older exports carry and every loader makes itself.
bool is_buffer(std::string_view name) { return name.ends_with(".rotary_emb.inv_freq"); }

struct Placed {
  Checkpoint::Entry entry;
  InferenceName name;
  std::int64_t weight_extent = 0;  // of the weight's cut dimension, also for its scale
  bool fp8 = false;                // the tensor is an FP8 weight or the scale of one
};

// Why a tensor cannot be cut into mp parts; empty when it can.
std::string cut_problem(const Placed& placed, std::int64_t mp, const ModelConfig& config) {
  if (placed.name.split == Split::kReplicated) return "";
  const std::string name(placed.entry.tensor->name);
  if (placed.name.split == Split::kExpert) {
    return config.n_routed_experts % mp == 0
               ? ""
               : fmt::format("{} routed experts are no multiple of {}", config.n_routed_experts,
                             mp);
  }
  if (placed.weight_extent % mp != 0) {
    return fmt::format("{}: its {} {} are no multiple of {}", name, placed.weight_extent,
                       placed.name.split == Split::kRows ? "rows" : "columns", mp);
  }
  const std::int64_t part = placed.weight_extent / mp;
  if (placed.fp8 && mp > 1 && part % kBlock != 0) {
    return fmt::format("{}: {} parts of {} {} would cut a block of 128 that has one scale", name,
                       mp, part, placed.name.split == Split::kRows ? "rows" : "columns");
  }
  return "";
}

std::string first_problem(const std::vector<Placed>& tensors, std::int64_t mp,
                          const ModelConfig& config) {
  if (config.num_attention_heads % mp != 0) {
    return fmt::format("{} attention heads are no multiple of {}", config.num_attention_heads, mp);
  }
  if (config.vocab_size % mp != 0) {
    return fmt::format("a vocabulary of {} is no multiple of {}", config.vocab_size, mp);
  }
  for (const Placed& placed : tensors) {
    std::string problem = cut_problem(placed, mp, config);
    if (!problem.empty()) return problem;
  }
  return "";
}

std::vector<Placed> place(const Source& source, cli::Run& run) {
  std::vector<Placed> tensors;
  std::size_t mtp = 0, buffers = 0;
  for (const Checkpoint::Entry& entry : source.checkpoint.entries()) {
    const TensorInfo& tensor = *entry.tensor;
    if (is_mtp(tensor.name, source.config)) {
      ++mtp;
      continue;
    }
    if (is_buffer(tensor.name)) {
      ++buffers;
      continue;
    }
    Placed placed{entry, {}, 0, tensor.dtype == DType::kF8E4M3};
    const auto name = to_inference_name(tensor.name);
    if (!name) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: tensor {} has no name in the inference layout",
                              entry.file->path().string(), tensor.name),
                  "only DeepSeek-V2/V3 tensors can be laid out so");
    }
    placed.name = *name;
    if (name->expert >= source.config.n_routed_experts) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("{}: tensor {} belongs to none of the {} experts of config.json",
                      entry.file->path().string(), tensor.name, source.config.n_routed_experts),
          "restore the config.json that belongs to these weights");
    }
    const TensorInfo* owner = &tensor;
    const std::string_view weight = weight_of_scale(tensor.name);
    if (!weight.empty()) {
      placed.fp8 = true;
      owner = source.checkpoint.find(weight).tensor;
      const std::string problem = owner == nullptr
                                      ? fmt::format("scale {} has no weight", tensor.name)
                                      : scale_problem(*owner, &tensor);
      if (!problem.empty()) {
        throw Error(ExitCode::kBadInput, source.folder.string() + ": " + problem);
      }
    } else if (placed.fp8) {
      const auto scale = source.checkpoint.find(std::string(tensor.name).append(kScaleSuffix));
      const std::string problem = scale_problem(tensor, scale.tensor);
      if (!problem.empty()) {
        throw Error(ExitCode::kBadInput, source.folder.string() + ": " + problem);
      }
    }
    if (name->split == Split::kRows || name->split == Split::kCols) {
      const std::size_t dim = name->split == Split::kRows ? 0 : 1;
      if (owner->shape.size() <= dim) {
        throw Error(
            ExitCode::kBadInput,
            fmt::format("{}: tensor {} of shape {} cannot be cut along dimension {}",
                        entry.file->path().string(), tensor.name, shape_text(owner->shape), dim));
      }
      placed.weight_extent = owner->shape[dim];
    }
    tensors.push_back(std::move(placed));
  }
  if (mtp > 0) {
    run.info(
        fmt::format("{} tensors of multi-token-prediction layers are left out: the inference "
                    "layout has no place for them",
                    mtp));
  }
  if (buffers > 0) run.info(fmt::format("{} rotary_emb.inv_freq buffers are left out", buffers));
  return tensors;
}

// The part of a tensor that `rank` gets.
Unit part_of(const Placed& placed, std::int64_t rank, std::int64_t mp) {
  const TensorInfo& tensor = *placed.entry.tensor;
  Unit unit{{{placed.name.name, tensor.dtype, tensor.shape.copy()}}, nullptr};
  if (mp == 1 || placed.name.split == Split::kReplicated || placed.name.split == Split::kExpert) {
    unit.recipe = copy_recipe(placed.entry);
    return unit;
  }
  const std::size_t dim = placed.name.split == Split::kRows ? 0 : 1;
  const std::int64_t part = tensor.shape[dim] / mp;
  unit.tensors[0].shape[dim] = part;
  const std::int64_t cols = tensor.shape.size() > 1 ? tensor.shape[1] : 1;
  if (dim == 0) {
    // A vector is cut as a column of one element a row.
    unit.recipe = tensor.shape.size() > 1 ? copy_recipe(placed.entry, rank * part, part, 0, cols)
                                          : copy_recipe(placed.entry, 0, 1, rank * part, part);
  } else {
    unit.recipe = copy_recipe(placed.entry, 0, tensor.shape[0], rank * part, part);
  }
  return unit;
}

}  // namespace

OutputPlan plan_to_inference(const Source& source, const WeightsSettings& settings, cli::Run& run) {
  if (settings.mtp == "keep") {
    throw Error(ExitCode::kUsage, "--mtp keep: the inference layout has no place for MTP layers",
                "leave the flag out, or use --to hf");
  }
  const std::vector<Placed> tensors = place(source, run);
  const std::string problem = first_problem(tensors, settings.mp, source.config);
  if (!problem.empty()) {
    std::int64_t largest = 1;
    const std::int64_t most =
        std::max(source.config.n_routed_experts, source.config.num_attention_heads);
    for (std::int64_t mp = 2; mp <= most; ++mp) {
      if (first_problem(tensors, mp, source.config).empty()) largest = mp;
    }
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: --mp {}: {}", source.folder.string(), settings.mp, problem),
                fmt::format("the largest --mp for this checkpoint is {}", largest));
  }
  if (source.config.hidden_size != 7168 && source.config.method == RouterMethod::kNoauxTc) {
    run.warn("DeepSeek's inference/model.py reads gate.bias only where dim is 7168: at dim " +
             std::to_string(source.config.hidden_size) + " its loader refuses these shards");
  }
  OutputPlan plan;
  const std::int64_t per_rank =
      std::max<std::int64_t>(1, source.config.n_routed_experts / settings.mp);
  for (std::int64_t rank = 0; rank < settings.mp; ++rank) {
    std::vector<Unit> units;
    for (const Placed& placed : tensors) {
      if (placed.name.split == Split::kExpert && placed.name.expert / per_rank != rank) continue;
      units.push_back(part_of(placed, rank, settings.mp));
    }
    plan.files.push_back(plan_safetensors(inference_shard_name(rank, settings.mp), units, {}));
  }
  nlohmann::ordered_json config = source.json;
  if (config.contains("num_nextn_predict_layers")) config["num_nextn_predict_layers"] = 0;
  add_texts(plan, config, source.folder, {});
  plan.identity = fmt::format("inference {}\n{}", settings.mp, identity_of(source.checkpoint));
  return plan;
}

}  // namespace ds::convert
