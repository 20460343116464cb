// LoRA adapters in GGUF form (llama.cpp's convert_lora_to_gguf.py): NAME.lora_a and NAME.lora_b for
// every tensor NAME of the base that is adapted, the rank being that of each pair.
#include <fmt/format.h>

#include <cmath>
#include <map>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/check/alike.h"
#include "libcore/check/gguf_target.h"
#include "libcore/io/safetensors_header.h"

namespace ds::check {
namespace {

using Shape = std::vector<std::int64_t>;

struct Pair {
  const GgufModel::Entry* a = nullptr;
  const GgufModel::Entry* b = nullptr;
  const GgufModel::Entry& any() const { return a != nullptr ? *a : *b; }
};

class GgufAdapter {
 public:
  GgufAdapter(const GgufTarget& target, const ModelConfig* base, const DeepOptions* deep,
              Findings& findings)
      : target_(target), base_(base), deep_(deep), findings_(findings), first_(*target.first()) {}

  void run() {
    keys();
    names();
    for (const auto& [name, pair] : pairs_) ranks(pair);
    if (base_ != nullptr) against_base();
    if (deep_ != nullptr) values();
    alike_.flush(findings_);
  }

 private:
  std::string file() const { return first_.path().string(); }
  void add(const char* rule, const GgufModel::Entry& entry, const std::string& what,
           const std::string& found = "", const std::string& expected = "") {
    alike_.add(rule, "", found, expected, [&] {
      return Finding{
          .file = file(),
          .tensor = entry.tensor->name,
          .message = fmt::format("{}: tensor {} {}", file(), quote_text(entry.tensor->name), what)};
    });
  }
  void key(const char* name, const std::string& found, const std::string& expected) {
    const bool architecture = std::string_view(name) == "general.architecture";
    findings_.add(
        architecture ? "gguf-architecture" : "gguf-adapter-keys",
        {.file = file(),
         .key = name,
         .message = fmt::format("{}: {} is {}, needed is {}", file(), name, found, expected),
         .found = found,
         .expected = expected});
  }

  void keys() {
    for (const auto& [name, wanted] :
         {std::pair{"general.architecture", "deepseek2"}, {"adapter.type", "lora"}}) {
      const GgufKey* key_of = first_.find_key(name);
      if (key_of != nullptr && key_of->type == GgufValueType::kString && key_of->text() == wanted) {
        continue;
      }
      key(name, key_of == nullptr ? "absent" : key_of->summary(), wanted);
    }
    const GgufKey* alpha = first_.find_key("adapter.lora.alpha");
    const bool number = alpha != nullptr && alpha->type == GgufValueType::kF32;
    if (!number || !std::isfinite(alpha->number()) || alpha->number() == 0.0) {
      key("adapter.lora.alpha", alpha == nullptr ? "absent" : alpha->summary(),
          "an f32 that is finite and not 0");
    }
  }

  void names() {
    for (const GgufModel::Entry& entry : target_.entries()) {
      const std::string& name = entry.tensor->name;
      const bool a = name.ends_with(".lora_a");
      if (!a && !name.ends_with(".lora_b")) {
        add("full-weight", entry, "is no LoRA tensor");
        continue;
      }
      const std::string type = entry.tensor->type_name();
      if (type != "F32" && type != "F16" && type != "BF16") {
        add("adapter-dtype", entry, "is " + type, type, "F32, BF16 or F16");
      }
      Pair& pair = pairs_[name.substr(0, name.size() - 7)];
      (a ? pair.a : pair.b) = &entry;
    }
  }

  // A is [..., r, in], B [..., out, r]; of an embedding, whose rows are looked up, A is [vocab, r].
  static bool is_embedding(const std::string& name) { return name == "token_embd.weight"; }

  void ranks(const Pair& pair) {
    if (pair.a == nullptr || pair.b == nullptr) {
      add("half-pair", pair.any(),
          fmt::format("has no {}", pair.a == nullptr ? "lora_a" : "lora_b"));
      return;
    }
    const Shape &a = pair.a->tensor->shape, &b = pair.b->tensor->shape;
    if (a.size() < 2 || b.size() < 2) {
      add("adapter-shape", a.size() < 2 ? *pair.a : *pair.b, "has fewer than 2 dimensions");
      return;
    }
    const std::string& name = pair.a->tensor->name;
    const std::int64_t rank =
        is_embedding(name.substr(0, name.size() - 7)) ? a.back() : a[a.size() - 2];
    if (rank == b.back()) return;
    add("pair-rank", *pair.a, fmt::format("has rank {}, its lora_b has {}", rank, b.back()),
        std::to_string(rank), std::to_string(b.back()));
  }

  std::vector<GgufTensorPlan> base_tensors() const {
    bool unsplit = false;
    for (const auto& [name, pair] : pairs_) {
      unsplit = unsplit || name.ends_with(".attn_kv_b.weight");
    }
    try {
      return gguf_tensor_plan(*base_, unsplit ? GgufMla::kUnsplit : GgufMla::kSplit);
    } catch (const Error&) {  // the base has no place in a GGUF file at all
      return {};
    }
  }

  void against_base() {
    std::map<std::string, Shape> known;
    for (const GgufTensorPlan& tensor : base_tensors()) known[tensor.name] = tensor.shape;
    std::size_t unmatched = 0;
    for (const auto& [name, pair] : pairs_) unmatched += known.count(name) == 0 ? 1 : 0;
    for (const auto& [name, pair] : pairs_) {
      const auto at = known.find(name);
      if (at == known.end()) {
        add(unmatched == pairs_.size() ? "key-matches-nothing" : "key-unmatched", pair.any(),
            fmt::format("matches no tensor of the base; {} of {} match nothing", unmatched,
                        pairs_.size()));
        continue;
      }
      shapes(name, pair, at->second);
    }
  }

  void shapes(const std::string& name, const Pair& pair, const Shape& base) {
    const auto compare = [&](const GgufModel::Entry* entry, std::size_t free, Shape wanted) {
      if (entry == nullptr || entry->tensor->shape.size() < 2) return;
      const Shape& found = entry->tensor->shape;
      if (found.size() == wanted.size()) wanted[free] = found[free];
      if (found == wanted) return;
      add("adapter-shape", *entry,
          fmt::format("has shape {}, the base's tensor is {}", shape_text(found), shape_text(base)),
          shape_text(found));
    };
    if (base.size() < 2) {
      add("adapter-shape", pair.any(), "adapts a vector");
      return;
    }
    const std::size_t last = base.size() - 1;
    Shape a = base, b = base;
    if (is_embedding(name)) {
      compare(pair.a, last, a);
      b = {base[1], 0};
      compare(pair.b, 1, b);
      return;
    }
    compare(pair.a, last - 1, a);
    compare(pair.b, last, b);
  }

  void values() {
    const std::vector<TensorStats> stats = read_gguf(target_, *deep_);
    std::size_t all = 0;
    std::vector<const GgufModel::Entry*> zero;
    for (std::size_t i = 0; i < stats.size(); ++i) {
      const GgufModel::Entry& entry = target_.entries()[i];
      if (stats[i].bad > 0) {
        add("adapter-not-finite", entry,
            fmt::format("has {} values that are not finite, the first at element {}", stats[i].bad,
                        stats[i].first_bad));
      }
      if (!entry.tensor->name.ends_with(".lora_b")) continue;
      ++all;
      if (stats[i].zero) zero.push_back(&entry);
    }
    if (zero.empty()) return;
    findings_.add(zero.size() == all ? "adapter-untrained" : "partly-untrained",
                  {.file = file(),
                   .tensor = zero.front()->tensor->name,
                   .message = fmt::format("{}: {} of {} lora_b are zero", file(), zero.size(), all),
                   .found = std::to_string(zero.size())});
  }

  const GgufTarget& target_;
  const ModelConfig* base_;
  const DeepOptions* deep_;
  Findings& findings_;
  const GgufFile& first_;
  std::map<std::string, Pair> pairs_;  // by the base's tensor
  Alike alike_;
};

}  // namespace

void check_gguf_adapter(const GgufTarget& target, const ModelConfig* base, const DeepOptions* deep,
                        Findings& findings) {
  GgufAdapter(target, base, deep, findings).run();
}

}  // namespace ds::check
