// The fused-expert adapter layout of transformers 5 (reference/formats.md 7.4).
#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>

#include "libcore/base/error.h"
#include "libcore/io/safetensors_header.h"
#include "libcore/model/adapter_sources.h"

namespace ds {

namespace {

constexpr std::string_view kA = ".lora_A.weight";
constexpr std::string_view kB = ".lora_B.weight";
constexpr std::string_view kInner = ".base_layer";
constexpr std::string_view kExperts = ".mlp.experts";

// A and B of one wrapped parameter.
struct Wrapper {
  const TensorInfo* a = nullptr;
  const TensorInfo* b = nullptr;
};

// The experts of one layer, as the slots describe them.
struct Layer {
  std::string path;  // "model.layers.3.mlp.experts"
  std::int64_t experts = 0;
  std::int64_t hidden = 0;
  std::int64_t width = 0;
};

[[noreturn]] void refuse(const SafetensorsFile& file, const std::string& text,
                         const std::string& hint) {
  throw Error(ExitCode::kBadInput, file.path().string() + ": " + text, hint);
}

class Matcher {
 public:
  Matcher(const SafetensorsFile& file, const std::vector<AdapterSlot>& slots,
          const SlotIndex& index, std::vector<AdapterSource>& sources)
      : file_(file), slots_(slots), index_(index), sources_(sources) {}

  void match(const std::string& key, const Wrapper& wrapper) {
    if (wrapper.a == nullptr || wrapper.b == nullptr) {
      refuse(file_,
             fmt::format("has '{}' but not its lora_{}",
                         (wrapper.a != nullptr ? wrapper.a : wrapper.b)->name,
                         wrapper.a != nullptr ? 'B' : 'A'),
             "the file is incomplete: copy it again");
    }
    for (const TensorInfo* tensor : {wrapper.a, wrapper.b}) {
      if (tensor->dtype != DType::kF32 && tensor->dtype != DType::kBF16 &&
          tensor->dtype != DType::kF16) {
        refuse(file_,
               fmt::format("tensor '{}' is {}, needed is F32, BF16 or F16", tensor->name,
                           kernels::dtype_name(tensor->dtype)),
               "store the adapter in one of these types");
      }
    }
    const Layer layer = describe(key, wrapper);
    const TensorInfo& a = *wrapper.a;
    const TensorInfo& b = *wrapper.b;
    const bool shaped = a.shape.size() == 2 && b.shape.size() == 2 && a.shape[0] == b.shape[1] &&
                        a.shape[0] > 0 && a.shape[0] % layer.experts == 0;
    const bool gate_up = shaped && a.shape[1] == layer.hidden && b.shape[0] == 2 * layer.width;
    const bool down = shaped && a.shape[1] == layer.width && b.shape[0] == layer.hidden;
    if (!gate_up && !down) {
      refuse(file_,
             fmt::format("tensors '{}' {} and lora_B {} fit neither gate_up ([{}r, {}] and [{}, "
                         "{}r]) nor down ([{}r, {}] and [{}, {}r]) of {} fused experts",
                         a.name, shape_text(a.shape), shape_text(b.shape), layer.experts,
                         layer.hidden, 2 * layer.width, layer.experts, layer.experts, layer.width,
                         layer.hidden, layer.experts, layer.experts),
             "use the base model that this adapter was trained on");
    }
    const std::int64_t rank = a.shape[0] / layer.experts;
    for (std::int64_t e = 0; e < layer.experts; ++e) {
      const std::string expert = fmt::format("{}.{}.", layer.path, e);
      if (down) {
        place(expert + "down_proj", wrapper, layer, e, rank, 0, 0);
        continue;
      }
      const std::int64_t wanted = rank_of(expert + "gate_proj", wrapper);
      if (wanted == rank) {
        // Trained in the fused form: gate and up share A, each has its half of B's rows.
        place(expert + "gate_proj", wrapper, layer, e, rank, 0, 0);
        place(expert + "up_proj", wrapper, layer, e, rank, 0, layer.width);
      } else {
        const std::int64_t half = rank % 2 == 0 ? rank / 2 : 0;  // 0: fits no slot
        place(expert + "gate_proj", wrapper, layer, e, half, 0, 0);
        place(expert + "up_proj", wrapper, layer, e, half, half, layer.width);
        if (e == 0) expect_block_diagonal(wrapper, layer, rank);
      }
    }
  }

 private:
  Layer describe(const std::string& key, const Wrapper& wrapper) const {
    Layer layer;
    layer.path = key;
    while (true) {
      const std::string expert = fmt::format("{}.{}.", key, layer.experts);
      const auto has = [&](const char* projection) {
        return index_.contains(expert + projection + std::string(kA)) &&
               index_.contains(expert + projection + std::string(kB));
      };
      if (!has("down_proj") && !(has("gate_proj") && has("up_proj"))) break;
      if (layer.experts == 0) {
        const bool from_down = has("down_proj");
        const std::string base = expert + (from_down ? "down_proj" : "gate_proj");
        const std::int64_t in = shape_of(base + std::string(kA))[1];
        const std::int64_t out = shape_of(base + std::string(kB))[0];
        layer.width = from_down ? in : out;
        layer.hidden = from_down ? out : in;
      }
      ++layer.experts;
    }
    if (layer.experts == 0) {
      refuse(file_,
             fmt::format("tensor '{}' adapts fused experts, but this run adapts no expert of '{}'",
                         wrapper.a->name, key),
             "add the experts to the adapter's targets, or use the base it was trained on");
    }
    return layer;
  }

  const std::vector<std::int64_t>& shape_of(const std::string& name) const {
    return slots_[index_.at(name)].shape;
  }

  std::int64_t rank_of(const std::string& module, const Wrapper& wrapper) const {
    const auto found = index_.find(module + std::string(kA));
    if (found == index_.end()) {
      refuse(file_,
             fmt::format("tensor '{}' adapts '{}', which is no target of this run", wrapper.a->name,
                         module),
             "add it to the adapter's targets");
    }
    return slots_[found->second].shape[0];
  }

  // Sources of one module's A and B: ranks [k0, k0 + rank) and B's rows from row0 of expert e.
  void place(const std::string& module, const Wrapper& wrapper, const Layer& layer, std::int64_t e,
             std::int64_t rank, std::int64_t k0, std::int64_t row0) {
    const std::int64_t wanted = rank_of(module, wrapper);
    const std::int64_t all = wrapper.a->shape[0];  // experts * rank of one expert
    const std::int64_t per_expert = all / layer.experts;
    if (wanted != rank) {
      refuse(file_,
             fmt::format("tensor '{}' has rank {} for each fused expert, which does not give '{}' "
                         "its rank {}",
                         wrapper.a->name, per_expert, module, wanted),
             "gate and up need half the rank of the fused gate_up when they were converted and the "
             "same rank when it was trained fused; set r or rank_pattern accordingly");
    }
    const std::size_t a = index_.at(module + std::string(kA));
    const std::size_t b = index_.at(module + std::string(kB));
    for (const std::size_t i : {a, b}) {
      if (sources_[i].tensor != nullptr) {
        refuse(file_,
               fmt::format("holds '{}' twice: in '{}' and in '{}'", slots_[i].name,
                           sources_[i].tensor->name, wrapper.a->name),
               "keep either the fused or the per-expert tensors");
      }
    }
    const std::int64_t cols = wrapper.a->shape[1];
    sources_[a] = {wrapper.a, (e * per_expert + k0) * cols, cols, 1};
    sources_[b] = {wrapper.b, row0 * all + k0 * layer.experts + e, all, layer.experts};
  }

  // Off-diagonal blocks of a converted gate_up B must be zero: their weights would be lost.
  void expect_block_diagonal(const Wrapper& wrapper, const Layer& layer, std::int64_t rank) const {
    const TensorInfo& b = *wrapper.b;
    const std::byte* data = file_.data(b);
    const std::int64_t all = b.shape[1];
    for (std::int64_t row = 0; row < 2 * layer.width; ++row) {
      // Columns are ordered rank first, expert fastest: the foreign half is contiguous.
      const std::int64_t begin = row < layer.width ? all / 2 : 0;
      for (std::int64_t column = begin; column < begin + all / 2; ++column) {
        if (adapter_value(data, b.dtype, row * all + column) != 0.0f) {
          refuse(file_,
                 fmt::format("tensor '{}' was trained over fused experts (gate and up share rank "
                             "{}), so it cannot be split into ranks of {}",
                             b.name, rank, rank / 2),
                 fmt::format("set rank_pattern to {} and alpha_pattern so that alpha / rank stays, "
                             "for gate_proj and up_proj of the experts",
                             rank));
        }
      }
    }
  }

  const SafetensorsFile& file_;
  const std::vector<AdapterSlot>& slots_;
  const SlotIndex& index_;
  std::vector<AdapterSource>& sources_;
};

}  // namespace

bool is_fused_expert_key(std::string_view key) {
  if (!key.ends_with(kA) && !key.ends_with(kB)) return false;
  key.remove_suffix(kA.size());
  if (key.ends_with(kInner)) key.remove_suffix(kInner.size());
  return key.ends_with(kExperts);
}

void match_fused_experts(const SafetensorsFile& file, const std::vector<std::string>& keys,
                         const std::vector<AdapterSlot>& slots, const SlotIndex& index,
                         std::vector<AdapterSource>& sources) {
  std::map<std::string, Wrapper> wrappers;  // by key without ".lora_X.weight"
  for (const std::string& key : keys) {
    Wrapper& wrapper = wrappers[key.substr(0, key.size() - kA.size())];
    const TensorInfo* tensor = file.find(std::string(kAdapterPrefix) + key);
    (key.ends_with(kA) ? wrapper.a : wrapper.b) = tensor;
  }
  Matcher matcher(file, slots, index, sources);
  for (const auto& [name, wrapper] : wrappers) {
    std::string path = name;
    if (path.ends_with(kInner)) path.resize(path.size() - kInner.size());
    matcher.match(path, wrapper);
  }
}

}  // namespace ds
