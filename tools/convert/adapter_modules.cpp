#include "tools/convert/adapter_modules.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <map>
#include <tuple>

#include "libcore/base/error.h"
#include "libcore/model/adapter_sources.h"

namespace ds::convert {

namespace {

constexpr std::string_view kLinearA = ".lora_A.weight";
constexpr std::string_view kLinearB = ".lora_B.weight";
constexpr std::string_view kEmbeddingA = ".lora_embedding_A";
constexpr std::string_view kEmbeddingB = ".lora_embedding_B";
constexpr std::string_view kInner = ".base_layer";

// The number behind `word` in a path, -1 without it.
std::int64_t number_after(std::string_view path, std::string_view word) {
  const std::size_t at = path.find(word);
  if (at == std::string_view::npos) return -1;
  std::int64_t number = -1;
  const char* begin = path.data() + at + word.size();
  const auto [end, error] = std::from_chars(begin, path.data() + path.size(), number);
  const bool whole = end == path.data() + path.size() || *end == '.';
  return error == std::errc() && whole && number >= 0 && number < (1 << 20) ? number : -1;
}

ModuleInfo describe(const std::string& path, std::int64_t in, std::int64_t out) {
  ModuleInfo module{path,
                    ModuleKind::kAttention,
                    number_after(path, "layers."),
                    number_after(path, ".experts."),
                    in,
                    out};
  const auto holds = [&](const char* part) { return path.find(part) != std::string::npos; };
  if (module.expert >= 0) {
    module.kind = ModuleKind::kExperts;
  } else if (holds(".shared_experts.")) {
    module.kind = ModuleKind::kSharedExperts;
  } else if (holds(".mlp.")) {
    module.kind = ModuleKind::kMlp;
  } else if (module.layer < 0) {
    module.kind = path.ends_with("embed_tokens") ? ModuleKind::kEmbedding : ModuleKind::kHead;
  }
  return module;
}

struct Pair {
  const TensorInfo* a = nullptr;
  const TensorInfo* b = nullptr;
};

class FusedLayer {
 public:
  FusedLayer(const SafetensorsFile& file, const LoraConfig& lora, std::string path)
      : file_(file), lora_(lora), path_(std::move(path)) {}
  void add(bool inner, const Pair& pair) { (inner ? inner_ : outer_) = pair; }

  // The three projections of every expert.
  void describe_to(std::vector<ModuleInfo>& out) const {
    // With two wrappers the inner one is gate_up, as transformers names that parameter first. One
    // alone is what target_parameters names.
    Pair gate_up = inner_, down = outer_;
    if (inner_.a == nullptr && !names_down()) std::swap(gate_up, down);
    for (const Pair* pair : {&gate_up, &down}) {
      if ((pair->a == nullptr) != (pair->b == nullptr)) {
        refuse("lora_A or lora_B of fused experts is missing");
      }
      if (pair->a != nullptr && (pair->a->shape.size() != 2 || pair->b->shape.size() != 2)) {
        refuse("tensors of fused experts need two dimensions");
      }
    }
    std::int64_t experts = 0;
    if (down.a != nullptr) {
      experts = down.a->shape[0] / rank_of("down_proj");
    } else if (gate_up.a != nullptr) {
      experts = gate_up.a->shape[0] / rank_of("gate_up_proj");
    }
    if (experts < 1 || experts > (1 << 20)) {
      refuse("the number of experts does not follow from the ranks of adapter_config.json");
    }
    const std::int64_t hidden = gate_up.a != nullptr ? gate_up.a->shape[1] : down.b->shape[0];
    const std::int64_t width = down.a != nullptr ? down.a->shape[1] : gate_up.b->shape[0] / 2;
    for (std::int64_t e = 0; e < experts; ++e) {
      const std::string expert = fmt::format("{}.{}.", path_, e);
      out.push_back(describe(expert + "gate_proj", hidden, width));
      out.push_back(describe(expert + "up_proj", hidden, width));
      out.push_back(describe(expert + "down_proj", width, hidden));
    }
  }

 private:
  bool names_down() const {
    for (const auto* names : {&lora_.target_parameters, &lora_.target_modules}) {
      for (const std::string& name : *names) {
        if (name.ends_with("down_proj")) return true;
      }
    }
    return false;
  }
  // By the patterns for the fused parameter, or for its first expert's module.
  std::int64_t rank_of(const std::string& parameter) const {
    const std::string leaf = parameter == "down_proj" ? "down_proj" : "gate_proj";
    const auto targets = match_targets(
        lora_, std::vector<ModuleInfo>{describe(fmt::format("{}.0.{}", path_, leaf), 1, 1)},
        Unmatched::kAllow);
    return targets.front().rank;
  }
  [[noreturn]] void refuse(const std::string& text) const {
    throw Error(ExitCode::kBadInput, fmt::format("{}: {}: {}", file_.path().string(), path_, text),
                "give the base model with --model");
  }

  const SafetensorsFile& file_;
  const LoraConfig& lora_;
  std::string path_;
  Pair inner_, outer_;
};

}  // namespace

std::vector<ModuleInfo> modules_of_file(const SafetensorsFile& file, const LoraConfig& lora) {
  std::map<std::string, Pair> pairs;
  std::map<std::string, FusedLayer> fused;
  for (const TensorInfo& tensor : file.tensors()) {
    std::string_view key = tensor.name;
    if (!key.starts_with(kAdapterPrefix) || tensor.shape.size() != 2) continue;
    key.remove_prefix(kAdapterPrefix.size());
    for (const std::string_view suffix : {kLinearA, kLinearB, kEmbeddingA, kEmbeddingB}) {
      if (!key.ends_with(suffix)) continue;
      const bool is_a = suffix == kLinearA || suffix == kEmbeddingA;
      Pair& pair = pairs[std::string(key.substr(0, key.size() - suffix.size()))];
      (is_a ? pair.a : pair.b) = &tensor;
    }
  }
  std::vector<ModuleInfo> out;
  for (const auto& [path, pair] : pairs) {
    if (is_fused_expert_key(path + std::string(kLinearA))) {
      std::string layer = path;
      const bool inner = layer.ends_with(kInner);
      if (inner) layer.resize(layer.size() - kInner.size());
      fused.try_emplace(layer, file, lora, layer).first->second.add(inner, pair);
    } else {  // one without the other is refused when the file is matched
      out.push_back(describe(path, pair.a != nullptr ? pair.a->shape[1] : 0,
                             pair.b != nullptr ? pair.b->shape[0] : 0));
    }
  }
  for (const auto& [path, layer] : fused) layer.describe_to(out);
  std::stable_sort(out.begin(), out.end(), [](const ModuleInfo& a, const ModuleInfo& b) {
    return std::tie(a.layer, a.expert) < std::tie(b.layer, b.expert);
  });
  return out;
}

}  // namespace ds::convert
