// LoRA adapters for llama.cpp (its convert_lora_to_gguf.py and src/llama-adapter.cpp): every tensor
// NAME of the deepseek2 file that is adapted has NAME.lora_a and NAME.lora_b, and the delta is
// lora_b lora_a * adapter.lora.alpha / rank, the rank being that of each lora_b.
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/config/gguf_names.h"
#include "libcore/io/gguf.h"
#include "tools/convert/adapter_parts.h"
#include "tools/convert/adapter_plan.h"
#include "tools/convert/source.h"

namespace ds::convert {

namespace {

using Kind = GgufTensorPlan::Kind;

AdapterSource transposed(AdapterSource source) {
  std::swap(source.row_step, source.col_step);
  return source;
}

// The same matrix from row `row` on.
AdapterSource from_row(AdapterSource source, std::int64_t row) {
  source.first += row * source.row_step;
  return source;
}

// lora_a or lora_b in the making; leading dimensions are flattened into rows.
struct Factor {
  std::vector<std::int64_t> shape;
  std::vector<FactorPart> parts;
};
struct LoraPair {
  std::string name;
  Factor a, b;
  std::int64_t rank = 0;
  double scaling = 0.0;  // of the first; the others' ratio to it is in their parts
};

class LoraPlanner {
 public:
  LoraPlanner(const AdapterFolder& adapter, const ModelConfig& config)
      : adapter_(adapter), config_(config) {
    for (const LowRankUpdate& update : adapter.updates) {
      updates_.emplace(update.weight_name(), &update);
    }
  }

  // Throws Error(kBadInput) for an adapted module without a tensor of its own: a tied head.
  std::vector<LoraPair> pairs() const {
    std::vector<LoraPair> out;
    std::set<std::string> waiting;
    for (const auto& [name, update] : updates_) waiting.insert(name);
    for (const GgufTensorPlan& tensor : gguf_tensor_plan(config_, GgufMla::kSplit)) {
      std::vector<const LowRankUpdate*> updates;
      bool any = false;
      for (std::int64_t expert = 0; expert < tensor.sources; ++expert) {
        const std::string source = tensor.source_name(expert);
        const auto found = updates_.find(source);
        updates.push_back(found == updates_.end() ? nullptr : found->second);
        any = any || updates.back() != nullptr;
        waiting.erase(source);
      }
      if (any) out.push_back(pair_of(tensor, updates));
    }
    if (!waiting.empty()) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: the adapter changes {}, of which a GGUF file of this model has "
                              "no tensor",
                              adapter_.file.path().string(), *waiting.begin()),
                  "merge it (deepseek-convert merge) and convert the result to GGUF");
    }
    return out;
  }

 private:
  LoraPair pair_of(const GgufTensorPlan& tensor,
                   const std::vector<const LowRankUpdate*>& updates) const {
    LoraPair pair;
    pair.name = tensor.name;
    for (const LowRankUpdate* update : updates) {
      if (update == nullptr) continue;
      if (pair.rank == 0) pair.scaling = update->scaling();
      pair.rank = std::max(pair.rank, update->rank());
    }
    const std::int64_t r = pair.rank, heads = config_.num_attention_heads;
    const std::int64_t nope = config_.qk_nope_head_dim, value = config_.v_head_dim;
    const std::vector<std::int64_t>& shape = tensor.shape;
    if (tensor.kind == Kind::kExperts) {
      pair.a.shape = {shape[0], r, shape[2]};
      pair.b.shape = {shape[0], shape[1], r};
      for (std::int64_t e = 0; e < shape[0]; ++e) {
        const LowRankUpdate* update = updates[static_cast<std::size_t>(e)];
        if (update == nullptr) continue;
        pair.a.parts.push_back({update->factor_a(), update->rank(), shape[2], e * r});
        pair.b.parts.push_back({update->factor_b(), shape[1], update->rank(), e * shape[1], 0, 1,
                                static_cast<float>(update->scaling() / pair.scaling)});
      }
      return pair;
    }
    const LowRankUpdate& update = *updates.front();
    const AdapterSource a = update.factor_a(), b = update.factor_b();
    if (tensor.kind == Kind::kWhole) {
      const std::int64_t in = update.module().in, out = update.module().out;
      pair.b = {{out, r}, {{b, out, r}}};
      if (update.module().kind == ModuleKind::kEmbedding) {
        pair.a = {{in, r}, {{transposed(a), in, r}}};  // rows are looked up by token
      } else {
        pair.a = {{r, in}, {{a, r, in}}};
      }
      return pair;
    }
    // Per head; attn_k_b is transposed, so that its B comes first: (B A)^T = A^T B^T.
    const bool key = tensor.kind == Kind::kKeyB;
    const std::int64_t width = key ? nope : value;
    pair.a.shape = {heads, r, key ? width : shape[2]};
    pair.b.shape = {heads, key ? shape[1] : width, r};
    for (std::int64_t h = 0; h < heads; ++h) {
      const AdapterSource rows = from_row(b, h * (nope + value) + (key ? 0 : nope));
      if (key) {
        pair.a.parts.push_back({transposed(rows), r, width, h * r});
        pair.b.parts.push_back({transposed(a), shape[1], r, h * shape[1]});
      } else {
        pair.a.parts.push_back({a, r, shape[2], h * r});
        pair.b.parts.push_back({rows, width, r, h * width});
      }
    }
    return pair;
  }

  const AdapterFolder& adapter_;
  const ModelConfig& config_;
  std::map<std::string, const LowRankUpdate*> updates_;
};

// adapter.lora.alpha: right for as many tensors as possible; the others' B is multiplied.
double common_alpha(const std::vector<LoraPair>& pairs) {
  std::map<double, std::size_t> votes;
  for (const LoraPair& pair : pairs) ++votes[pair.scaling * static_cast<double>(pair.rank)];
  return std::max_element(votes.begin(), votes.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

void refuse_what_gguf_lacks(const AdapterFolder& adapter) {
  const std::string file = adapter.file.path().string();
  if (adapter.lora.use_dora) {
    throw Error(ExitCode::kBadInput, file + ": DoRA has no place in a GGUF adapter",
                "merge it (deepseek-convert merge) and convert the result to GGUF");
  }
  for (const WholeWeight& whole : adapter.whole) {
    if (whole.copy) continue;
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: tensor '{}' is a whole weight of the model (modules_to_save), "
                            "which has no place in a GGUF adapter",
                            file, whole.tensor->name),
                "merge it (deepseek-convert merge) and convert the result to GGUF");
  }
}

// llama.cpp's graph of deepseek2 multiplies by these weights without asking for adapters.
void warn_about_llama_cpp(const AdapterFolder& adapter, cli::Run& run) {
  std::set<std::string> ignored;
  for (const LoraTarget& target : adapter.targets) {
    const std::string leaf = target.module.path.substr(target.module.path.rfind('.') + 1);
    const bool attention = target.module.kind == ModuleKind::kAttention && leaf != "o_proj";
    if (attention || target.module.kind == ModuleKind::kHead) ignored.insert(leaf);
  }
  if (ignored.empty()) return;
  std::string names;
  for (const std::string& name : ignored) names += (names.empty() ? "" : ", ") + name;
  run.warn(
      fmt::format("llama.cpp has left adapters of {} out of its deepseek2 graph without a "
                  "word: unless yours applies them, merge the adapter and convert the result",
                  names));
}

}  // namespace

OutputPlan plan_gguf_lora(const AdapterFolder& adapter, const ModelConfig& config,
                          const std::string& output, cli::Run& run) {
  refuse_what_gguf_lacks(adapter);
  warn_about_llama_cpp(adapter, run);
  std::vector<LoraPair> pairs = LoraPlanner(adapter, config).pairs();
  const double alpha = common_alpha(pairs);
  GgufKeyWriter keys;
  keys.text("general.architecture", "deepseek2");
  keys.text("general.type", "adapter");
  const std::filesystem::path named = adapter.folder.lexically_normal();
  keys.text("general.name",
            (named.has_filename() ? named : named.parent_path()).filename().string());
  keys.u32("general.file_type", 0);
  keys.text("adapter.type", "lora");
  keys.f32("adapter.lora.alpha", static_cast<float>(alpha));

  std::vector<GgufTensorToWrite> tensors;
  std::vector<std::shared_ptr<const Recipe>> recipes;
  const auto add = [&](const std::string& name, Factor& factor) {
    std::int64_t rows = 1;
    for (std::size_t i = 0; i + 1 < factor.shape.size(); ++i) rows *= factor.shape[i];
    recipes.push_back(parts_recipe(adapter.file, name, rows, factor.shape.back(), DType::kF32,
                                   std::move(factor.parts)));
    tensors.push_back({name, GgmlType::kF32, factor.shape});
  };
  for (LoraPair& pair : pairs) {
    const auto fold = static_cast<float>(pair.scaling * static_cast<double>(pair.rank) / alpha);
    for (FactorPart& part : pair.b.parts) part.factor *= fold;
    add(pair.name + ".lora_a", pair.a);
    add(pair.name + ".lora_b", pair.b);
  }
  const GgufLayout layout = layout_gguf(keys, tensors);
  OutputPlan plan;
  const std::filesystem::path path = output;
  plan.single_file = path.extension() == ".gguf";
  OutputFile file;
  file.name = plan.single_file ? path.filename().string() : "adapter_model.gguf";
  file.start = layout.start;
  file.bytes = layout.bytes;
  file.tensors = tensors.size();
  for (std::size_t i = 0; i < recipes.size(); ++i) {
    file.jobs.push_back({recipes[i], {layout.offsets[i]}});
  }
  plan.files.push_back(std::move(file));
  plan.identity = identity_of({&adapter.file}) + read_file(adapter.folder / kAdapterConfigFile);
  return plan;
}

}  // namespace ds::convert
