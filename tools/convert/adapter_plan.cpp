#include "tools/convert/adapter_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "tools/convert/adapter_parts.h"
#include "tools/convert/encode.h"
#include "tools/convert/output_plan.h"
#include "tools/convert/source.h"

namespace ds::convert {

namespace {

std::string leaf_of(const std::string& path) { return path.substr(path.rfind('.') + 1); }

// "model.layers.3.mlp.experts" of an expert's module.
std::string experts_of(const ModuleInfo& module) {
  return fmt::format("model.layers.{}.mlp.experts", module.layer);
}

// gate_proj, up_proj and down_proj of one expert, null where it has none.
struct Expert {
  const LowRankUpdate* gate = nullptr;
  const LowRankUpdate* up = nullptr;
  const LowRankUpdate* down = nullptr;
};
using Experts = std::map<std::int64_t, Expert>;

// By layer and expert.
std::map<std::int64_t, Experts> experts_by_layer(const std::vector<LowRankUpdate>& updates) {
  std::map<std::int64_t, Experts> out;
  for (const LowRankUpdate& update : updates) {
    const ModuleInfo& module = update.module();
    if (module.kind != ModuleKind::kExperts) continue;
    Expert& expert = out[module.layer][module.expert];
    const std::string leaf = leaf_of(module.path);
    (leaf == "gate_proj" ? expert.gate : leaf == "up_proj" ? expert.up : expert.down) = &update;
  }
  return out;
}

bool same_place(const AdapterSource& a, const AdapterSource& b) {
  return a.tensor == b.tensor && a.first == b.first && a.row_step == b.row_step &&
         a.col_step == b.col_step;
}

// Ranks [first, first + count) of B are zero in every row.
bool zero_ranks(const LowRankUpdate& update, std::int64_t first, std::int64_t count) {
  const AdapterSource b = update.factor_b();
  for (std::int64_t row = 0; row < update.module().out; ++row) {
    for (std::int64_t k = first; k < first + count; ++k) {
      if (update.value(b, row, k) != 0.0f) return false;
    }
  }
  return true;
}

// Gate has the first half of the ranks and up the second, in every expert of a layer: what peft
// makes of two per-expert pairs.
bool block_diagonal(const Experts& experts) {
  for (const auto& [number, expert] : experts) {
    if (expert.gate == nullptr || expert.up == nullptr) return false;
    const std::int64_t rank = expert.gate->rank();
    if (rank != expert.up->rank() || rank % 2 != 0 ||
        !same_place(expert.gate->factor_a(), expert.up->factor_a()) ||
        !zero_ranks(*expert.gate, rank / 2, rank / 2) || !zero_ranks(*expert.up, 0, rank / 2)) {
      return false;
    }
  }
  return true;
}

bool same_values(const LowRankUpdate& a, const LowRankUpdate& b) {
  const AdapterSource left = a.factor_a(), right = b.factor_a();
  if (a.rank() != b.rank()) return false;
  if (same_place(left, right)) return true;
  for (std::int64_t k = 0; k < a.rank(); ++k) {
    for (std::int64_t j = 0; j < a.module().in; ++j) {
      if (a.value(left, k, j) != b.value(right, k, j)) return false;
    }
  }
  return true;
}

DType common_dtype(const std::vector<FactorPart>& parts) {
  std::optional<DType> dtype;
  for (const FactorPart& part : parts) {
    const DType own = part.factor == 1.0f ? part.source.tensor->dtype : DType::kF32;
    if (dtype && *dtype != own) return DType::kF32;
    dtype = own;
  }
  return dtype.value_or(DType::kF32);
}

class PeftPlanner {
 public:
  PeftPlanner(const AdapterFolder& adapter, const std::vector<ModuleInfo>& modules)
      : adapter_(adapter), modules_(modules) {}

  void add_plain(const LowRankUpdate& update) {
    const ModuleInfo& module = update.module();
    const bool embedding = module.kind == ModuleKind::kEmbedding;
    add(module.path + (embedding ? ".lora_embedding_A" : ".lora_A.weight"),
        {update.rank(), module.in}, {{update.factor_a(), update.rank(), module.in}});
    add(module.path + (embedding ? ".lora_embedding_B" : ".lora_B.weight"),
        {module.out, update.rank()}, {{update.factor_b(), module.out, update.rank()}});
    if (update.has_magnitude()) {
      add(module.path + ".lora_magnitude_vector", {module.out},
          {{update.magnitude(), 1, module.out}});
    }
    targets_.push_back(update.target());
  }

  void add(const std::string& name, const std::vector<std::int64_t>& shape,
           std::vector<FactorPart> parts) {
    const DType dtype = common_dtype(parts);
    const std::string key = std::string(kAdapterPrefix) + name;
    units_.push_back({{{key, dtype, shape}},
                      parts_recipe(adapter_.file, key, shape.size() < 2 ? 1 : shape[0],
                                   shape.back(), dtype, std::move(parts))});
  }

  void add_target(const LoraTarget& target) { targets_.push_back(target); }
  // In the place of the last one.
  void replace_target(const LoraTarget& target) { targets_.back() = target; }

  // The rest of the file, and everything as a plan.
  OutputPlan finish(const LoraConfig& lora, ExpertTensors experts) {
    for (const WholeWeight& whole : adapter_.whole) {
      const TensorInfo& tensor = *whole.tensor;
      units_.push_back({{{std::string(tensor.name), tensor.dtype, tensor.shape.copy()}},
                        copy_recipe({&adapter_.file, &tensor})});
    }
    OutputPlan plan;
    plan.files.push_back(plan_safetensors(kAdapterTensorFile, units_, {{"format", "pt"}}));
    plan.texts[kAdapterConfigFile] = adapter_config_text(lora, targets_, modules_, experts);
    plan.identity = identity_of({&adapter_.file}) + read_file(adapter_.folder / kAdapterConfigFile);
    return plan;
  }
  const std::vector<LoraTarget>& targets() const { return targets_; }

 private:
  const AdapterFolder& adapter_;
  const std::vector<ModuleInfo>& modules_;
  std::vector<Unit> units_;
  std::vector<LoraTarget> targets_;
};

// One fused tensor pair of a layer: for every expert a few updates side by side in the rank, each
// with its rows of the output.
class FusedPair {
 public:
  FusedPair(const std::string& key, std::int64_t experts, std::int64_t in, std::int64_t out)
      : key_(key), experts_(experts), in_(in), out_(out) {}

  // B's rows [row, row + update.module().out) of an expert; ranks from `rank` on. `shares_a`: A is
  // there already.
  void add(std::int64_t expert, const LowRankUpdate& update, std::int64_t rank, std::int64_t row,
           bool shares_a) {
    items_.push_back({expert, &update, rank, row, shares_a});
    rank_ = std::max(rank_, rank + update.rank());
    if (!scaling_) scaling_ = update.scaling();
  }
  bool empty() const { return items_.empty(); }
  std::int64_t rank() const { return rank_; }
  // Of plain LoRA with this rank.
  double alpha() const { return scaling_.value_or(0.0) * static_cast<double>(rank_); }

  void write(PeftPlanner& planner) const {
    std::vector<FactorPart> a, b;
    for (const Item& item : items_) {
      const LowRankUpdate& update = *item.update;
      if (!item.shares_a) {
        a.push_back({update.factor_a(), update.rank(), in_, item.expert * rank_ + item.rank});
      }
      b.push_back({update.factor_b(), update.module().out, update.rank(), item.row,
                   item.rank * experts_ + item.expert, experts_,
                   static_cast<float>(update.scaling() / *scaling_)});
    }
    planner.add(key_ + ".lora_A.weight", {experts_ * rank_, in_}, std::move(a));
    planner.add(key_ + ".lora_B.weight", {out_, rank_ * experts_}, std::move(b));
  }

 private:
  struct Item {
    std::int64_t expert = 0;
    const LowRankUpdate* update = nullptr;
    std::int64_t rank = 0, row = 0;
    bool shares_a = false;
  };
  std::string key_;
  std::int64_t experts_, in_, out_;
  std::int64_t rank_ = 0;
  std::optional<double> scaling_;
  std::vector<Item> items_;
};

// The modules of one layer's experts.
std::vector<ModuleInfo> expert_modules(const std::vector<ModuleInfo>& modules, std::int64_t layer) {
  std::vector<ModuleInfo> out;
  for (const ModuleInfo& module : modules) {
    if (module.kind == ModuleKind::kExperts && module.layer == layer) out.push_back(module);
  }
  return out;
}

void add_fused_layer(PeftPlanner& planner, const Experts& experts,
                     const std::vector<ModuleInfo>& modules, std::int64_t layer) {
  const std::vector<ModuleInfo> all = expert_modules(modules, layer);
  std::int64_t count = 0, hidden = 0, width = 0;
  for (const ModuleInfo& module : all) {
    count = std::max(count, module.expert + 1);
    const bool down = leaf_of(module.path) == "down_proj";
    hidden = down ? module.out : module.in;
    width = down ? module.in : module.out;
  }
  bool has_down = false;
  for (const auto& [number, expert] : experts) has_down = has_down || expert.down != nullptr;
  const std::string path = experts_of(all.front());
  // The parameter that transformers names first is wrapped first.
  FusedPair gate_up(path + (has_down ? ".base_layer" : ""), count, hidden, 2 * width);
  FusedPair down(path, count, width, hidden);
  // Shared A, if that goes for every expert: then the fused rank is theirs.
  const bool shared = std::all_of(experts.begin(), experts.end(), [](const auto& entry) {
    const Expert& expert = entry.second;
    return expert.gate != nullptr && expert.up != nullptr && same_values(*expert.gate, *expert.up);
  });
  std::int64_t gate_rank = 0;  // the largest, so that up begins at the same rank everywhere
  for (const auto& [number, expert] : experts) {
    if (expert.gate != nullptr) gate_rank = std::max(gate_rank, expert.gate->rank());
  }
  for (const auto& [number, expert] : experts) {
    if (expert.gate != nullptr) gate_up.add(number, *expert.gate, 0, 0, false);
    if (expert.up != nullptr)
      gate_up.add(number, *expert.up, shared ? 0 : gate_rank, width, shared);
    if (expert.down != nullptr) down.add(number, *expert.down, 0, 0, false);
  }
  if (!gate_up.empty()) gate_up.write(planner);
  if (!down.empty()) down.write(planner);
  for (const ModuleInfo& module : all) {
    const FusedPair& pair = leaf_of(module.path) == "down_proj" ? down : gate_up;
    if (!pair.empty()) planner.add_target({module, pair.rank(), pair.alpha(), 0.0});
  }
}

}  // namespace

OutputPlan plan_peft(const AdapterFolder& adapter, const std::vector<ModuleInfo>& modules,
                     cli::Run& run) {
  PeftPlanner planner(adapter, modules);
  const auto layers = experts_by_layer(adapter.updates);
  std::map<std::int64_t, bool> halved;
  for (const auto& [layer, experts] : layers) halved[layer] = block_diagonal(experts);
  for (const LowRankUpdate& update : adapter.updates) {
    const ModuleInfo& module = update.module();
    const std::string leaf = leaf_of(module.path);
    if (module.kind == ModuleKind::kExperts && leaf != "down_proj" && halved[module.layer]) {
      const std::int64_t half = update.rank() / 2;
      planner.add_plain(update.ranks(leaf == "gate_proj" ? 0 : half, half));
    } else {
      planner.add_plain(update);
    }
  }
  for (const std::string& note : adapter_compatibility_notes(adapter.lora, planner.targets())) {
    run.warn(note);
  }
  return planner.finish(adapter.lora, ExpertTensors::kPerExpert);
}

OutputPlan plan_peft_fused(const AdapterFolder& adapter, const std::vector<ModuleInfo>& modules,
                           cli::Run& run) {
  const auto layers = experts_by_layer(adapter.updates);
  if (layers.empty()) {
    throw Error(ExitCode::kBadInput,
                adapter.file.path().string() + ": adapts no routed expert, so nothing is fused",
                "its layout is the same for every PEFT");
  }
  if (adapter.lora.use_dora) {
    throw Error(ExitCode::kBadInput,
                adapter.file.path().string() +
                    ": DoRA on routed experts has no fused form (PEFT refuses it)",
                "merge the adapter instead");
  }
  PeftPlanner planner(adapter, modules);
  // Written as plain LoRA: PEFT's rsLoRA would take the fused rank.
  LoraConfig plain = adapter.lora;
  plain.use_rslora = false;
  for (const LowRankUpdate& update : adapter.updates) {
    if (update.module().kind == ModuleKind::kExperts) continue;
    LoraTarget target = update.target();
    target.alpha = target.scaling * static_cast<double>(target.rank);
    planner.add_plain(update);
    planner.replace_target(target);
  }
  for (const auto& [layer, experts] : layers) add_fused_layer(planner, experts, modules, layer);
  run.info("written for PEFT 0.21 with transformers 5");
  return planner.finish(plain, ExpertTensors::kFused);
}

}  // namespace ds::convert
