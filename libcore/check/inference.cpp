// The tensors of DeepSeek's inference layout.
#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/stop.h"
#include "libcore/check/alike.h"
#include "libcore/check/expected_tensors.h"
#include "libcore/check/inference_target.h"
#include "libcore/config/inference_names.h"
#include "libcore/io/safetensors_header.h"

namespace ds::check {
namespace {

using Split = InferenceSplit;
using Shape = std::vector<std::int64_t>;
using kernels::DType;

constexpr std::int64_t kBlock = 128;
constexpr std::size_t kCompared = std::size_t{4} << 20;
constexpr std::string_view kScale = ".scale";

struct Part {
  std::int64_t rank = 0;
  const TensorInfo* tensor = nullptr;
};
// One name of the layout with what the ranks have of it.
struct Tensor {
  InferenceName hf;
  std::vector<Part> parts;
};

class InferenceCheck {
 public:
  InferenceCheck(const InferenceTarget& target, Findings& findings)
      : target_(target), findings_(findings) {}

  void run() {
    collect();
    experts_ = target_.config() ? target_.config()->n_routed_experts : counted_experts();
    for (const auto& [name, tensor] : tensors_) {
      placed(name, tensor);
      alike_shapes(name, tensor);
      scales(name, tensor);
    }
    if (target_.config()) {
      divisible(*target_.config());
      expected(*target_.config());
    }
    alike_.flush(findings_);
  }

  // Whether every rank has the same bytes of what is whole in each.
  void compare() {
    for (const auto& [name, tensor] : tensors_) {
      if (tensor.hf.split != Split::kReplicated) continue;
      for (std::size_t i = 1; i < tensor.parts.size(); ++i) {
        const Part &first = tensor.parts[0], &other = tensor.parts[i];
        if (first.tensor->bytes() != other.tensor->bytes()) continue;  // said
        if (same(first, other)) continue;
        alike_.add("inference-copies-differ", tensor.hf.name, "", "", [&] {
          return about(other, fmt::format("has other bytes than in {}", file(first.rank)));
        });
        break;
      }
    }
    alike_.flush(findings_);
  }

 private:
  const SafetensorsFile& shard(std::int64_t rank) const {
    return *target_.shards()[static_cast<std::size_t>(rank)];
  }
  std::string file(std::int64_t rank) const { return shard(rank).path().string(); }
  Finding about(const Part& part, const std::string& what) const {
    return {.file = file(part.rank),
            .tensor = std::string(part.tensor->name),
            .message = fmt::format("{}: tensor {} {}", file(part.rank),
                                   quote_text(part.tensor->name), what)};
  }
  // What tensors of the same kind have in common.
  static std::string kind(const InferenceName& hf) {
    const TensorName parts = split_name(hf.name);
    return (parts.expert >= 0 ? "experts.*." : "") + std::string(parts.stem);
  }

  void collect() {
    for (std::int64_t rank = 0; rank < target_.ranks(); ++rank) {
      if (target_.shards()[static_cast<std::size_t>(rank)] == nullptr) continue;
      ++read_;
      for (const TensorInfo& tensor : shard(rank).tensors()) {
        const auto hf = to_hf_name(tensor.name);
        if (!hf) {
          const bool other = to_inference_name(tensor.name).has_value();
          alike_.add("inference-name", other ? "Hugging Face names" : "", "", "", [&] {
            return about({rank, &tensor}, other ? "has the name of the Hugging Face layout"
                                                : "is none of the layout");
          });
          continue;
        }
        Tensor& entry = tensors_[std::string(tensor.name)];
        entry.hf = *hf;
        entry.parts.push_back({rank, &tensor});
      }
    }
  }

  std::int64_t counted_experts() const {
    std::int64_t count = 0;
    for (const auto& [name, tensor] : tensors_) {
      count = std::max(count, std::min(tensor.hf.expert, INT64_MAX - target_.ranks()) + 1);
    }
    return count;
  }

  // Whether the ranks that need a tensor have it.
  void placed(const std::string& name, const Tensor& tensor) {
    if (tensor.hf.split == Split::kExpert) {
      const std::int64_t ranks = target_.ranks();
      const std::int64_t per_rank = std::max<std::int64_t>(1, (experts_ + ranks - 1) / ranks);
      for (const Part& part : tensor.parts) {
        const std::int64_t owner = tensor.hf.expert / per_rank;
        if (part.rank == owner || tensor.hf.expert >= experts_) continue;
        alike_.add("inference-expert-rank", kind(tensor.hf), "", "", [&] {
          return about(part, fmt::format("is of expert {} of {}, which belongs to rank {} of {}",
                                         tensor.hf.expert, experts_, owner, target_.ranks()));
        });
      }
      return;
    }
    if (tensor.parts.size() == read_) return;
    std::set<std::int64_t> has;
    for (const Part& part : tensor.parts) has.insert(part.rank);
    for (std::int64_t rank = 0; rank < target_.ranks(); ++rank) {
      if (has.count(rank) > 0 || target_.shards()[static_cast<std::size_t>(rank)] == nullptr) {
        continue;
      }
      alike_.add("inference-not-in-all", kind(tensor.hf), std::to_string(has.size()),
                 std::to_string(read_), [&] {
                   return Finding{
                       .file = file(rank),
                       .tensor = name,
                       .message = fmt::format("{}: tensor {} is missing, {} of {} shards have it",
                                              file(rank), quote_text(name), has.size(), read_)};
                 });
    }
  }

  void alike_shapes(const std::string&, const Tensor& tensor) {
    const Part& first = tensor.parts.front();
    const auto form = [](const Part& part) {
      return fmt::format("{} {}", kernels::dtype_name(part.tensor->dtype),
                         shape_text(part.tensor->shape));
    };
    for (const Part& part : tensor.parts) {
      if (part.tensor->dtype == first.tensor->dtype && part.tensor->shape == first.tensor->shape) {
        continue;
      }
      alike_.add("inference-ranks-differ", kind(tensor.hf), form(part), form(first), [&] {
        return about(
            part, fmt::format("is {}, in rank {} it is {}", form(part), first.rank, form(first)));
      });
    }
  }

  void scales(const std::string& name, const Tensor& tensor) {
    const auto add = [&](const Part& part, const std::string& what) {
      alike_.add("inference-scale", kind(tensor.hf) + what, "", "",
                 [&] { return about(part, what); });
    };
    const bool scale = name.ends_with(kScale);
    const std::string stem =
        name.substr(0, name.size() - (scale ? kScale.size() : std::string_view(".weight").size()));
    if (!scale && !name.ends_with(".weight")) return;
    for (const Part& part : tensor.parts) {
      const std::string other = stem + (scale ? ".weight" : std::string(kScale));
      const TensorInfo* found = shard(part.rank).find(other);
      if (scale) {
        if (found == nullptr) {
          add(part, "is a scale, and its weight is not in the shard");
        } else if (found->dtype != DType::kF8E4M3) {
          add(part, "is a scale, and its weight is not FP8");
        }
        continue;
      }
      if (part.tensor->dtype != DType::kF8E4M3) continue;
      if (found == nullptr) {
        add(part, "is FP8, and its scale is not in the shard");
        continue;
      }
      one_scale(part, *found, tensor.hf);
    }
  }

  void one_scale(const Part& part, const TensorInfo& scale, const InferenceName& hf) {
    const ShapeView shape = part.tensor->shape;
    if (shape.size() != 2) return;
    const Shape needed{(shape[0] + kBlock - 1) / kBlock, (shape[1] + kBlock - 1) / kBlock};
    const bool exponents = scale.dtype == DType::kF8E8M0 || scale.dtype == DType::kU8;
    if (scale.shape != needed || (scale.dtype != DType::kF32 && !exponents)) {
      const std::string found =
          fmt::format("{} {}", kernels::dtype_name(scale.dtype), shape_text(scale.shape));
      const std::string expected = "F32 " + shape_text(needed);
      alike_.add("inference-scale", kind(hf), found, expected, [&] {
        return about({part.rank, &scale}, fmt::format("is {}, the weight's {} needs {}", found,
                                                      shape_text(shape), expected));
      });
    }
    if (target_.ranks() == 1 || (hf.split != Split::kRows && hf.split != Split::kCols)) return;
    const std::int64_t extent = shape[hf.split == Split::kRows ? 0 : 1];
    if (extent % kBlock == 0) return;
    alike_.add("inference-block-cut", kind(hf), std::to_string(extent), "a multiple of 128", [&] {
      return about(part, fmt::format("has {} {} of each of {} ranks, needed is a multiple of {}",
                                     extent, hf.split == Split::kRows ? "rows" : "columns",
                                     target_.ranks(), kBlock));
    });
  }

  void divisible(const ModelConfig& config) {
    const auto one = [&](const char* key, std::int64_t value) {
      if (value % target_.ranks() == 0) return;
      const std::string name = (target_.folder() / "config.json").string();
      findings_.add("inference-not-divisible",
                    {.file = name,
                     .key = key,
                     .message = fmt::format("{}: {} is {}, no multiple of the {} ranks", name, key,
                                            value, target_.ranks()),
                     .found = std::to_string(value),
                     .expected = fmt::format("a multiple of {}", target_.ranks())});
    };
    one("num_attention_heads", config.num_attention_heads);
    one("vocab_size", config.vocab_size);
    one("n_routed_experts", config.n_routed_experts);
  }

  void uneven(const Tensor& tensor, std::int64_t extent) {
    alike_.add(
        "inference-not-divisible", kind(tensor.hf), std::to_string(extent),
        fmt::format("a multiple of {}", target_.ranks()), [&] {
          return about(
              tensor.parts.front(),
              fmt::format("is one part of {} {}, no multiple of the {} ranks", extent,
                          tensor.hf.split == Split::kRows ? "rows" : "columns", target_.ranks()));
        });
  }

  // One tensor of config.json, by its Hugging Face name.
  void wanted(const std::string& hf, const TensorSlot& slot) {
    const auto name = to_inference_name(hf);
    if (!name) return;
    known_.insert(name->name);
    const auto at = tensors_.find(name->name);
    if (at == tensors_.end()) {
      if (!target_.complete()) return;
      alike_.add("inference-missing-tensor", kind({hf, name->split, name->expert}), "", "", [&] {
        const std::string folder = target_.folder().string();
        return Finding{
            .file = folder,
            .tensor = name->name,
            .message = fmt::format("{}: tensor {} is in no shard", folder, quote_text(name->name))};
      });
      return;
    }
    Shape shape = slot.shape;
    const std::size_t cut = name->split == Split::kCols ? 1 : 0;
    if ((name->split == Split::kRows || name->split == Split::kCols) && cut < shape.size()) {
      if (shape[cut] % target_.ranks() != 0) {
        uneven(at->second, shape[cut]);
        return;
      }
      shape[cut] /= target_.ranks();
    }
    for (const Part& part : at->second.parts) {
      if (part.tensor->shape == shape) continue;
      const std::string found = shape_text(part.tensor->shape), needed = shape_text(shape);
      alike_.add("inference-shape", kind(at->second.hf), found, needed, [&] {
        return about(part, fmt::format("has shape {}, config.json demands {} of one of {} ranks",
                                       found, needed, target_.ranks()));
      });
    }
  }

  void expected(const ModelConfig& config) {
    const ExpectedTensors all(config);
    for (std::int64_t layer = -1; layer < all.main_layers(); ++layer) {
      const LayerPlan& plan = layer < 0 ? all.outside() : all.layer(layer);
      for (const TensorSlot& slot : plan.slots) wanted(join_name(layer, -1, slot.stem), slot);
      for (std::int64_t expert = 0; plan.moe && expert < all.experts(); ++expert) {
        for (const TensorSlot& slot : all.expert().slots) {
          wanted(join_name(layer, expert, slot.stem), slot);
        }
      }
    }
    for (const auto& entry : tensors_) {
      const auto& tensor = entry.second;
      if (known_.count(entry.first) > 0 || entry.first.ends_with(kScale)) continue;
      alike_.add("inference-unknown-tensor", kind(tensor.hf), "", "",
                 [&] { return about(tensor.parts.front(), "is none that config.json demands"); });
    }
  }

  bool same(const Part& a, const Part& b) const {
    const SafetensorsFile &one = shard(a.rank), &two = shard(b.rank);
    for (std::uint64_t at = 0; at < a.tensor->bytes(); at += kCompared) {
      if (stop_requested()) throw Error(ExitCode::kInterrupted, "interrupted while reading data");
      const std::uint64_t size = std::min<std::uint64_t>(kCompared, a.tensor->bytes() - at);
      const bool equal = std::memcmp(one.data(*a.tensor) + at, two.data(*b.tensor) + at, size) == 0;
      one.file().dont_need(a.tensor->begin + at, size);
      two.file().dont_need(b.tensor->begin + at, size);
      if (!equal) return false;
    }
    return true;
  }

  const InferenceTarget& target_;
  Findings& findings_;
  std::map<std::string, Tensor> tensors_;
  std::set<std::string> known_;
  std::size_t read_ = 0;  // shards
  std::int64_t experts_ = 0;
  Alike alike_;
};

}  // namespace

void check_inference(const InferenceTarget& target, const DeepOptions* deep, Findings& findings) {
  InferenceCheck check(target, findings);
  check.run();
  if (deep == nullptr) return;
  check.compare();
  for (const auto& shard : target.shards()) {
    if (shard != nullptr) check_data(*shard, *deep, findings);
  }
}

}  // namespace ds::check
