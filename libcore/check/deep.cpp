#include "libcore/check/deep.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <utility>

#include "libcore/base/format.h"
#include "libcore/check/alike.h"
#include "libcore/check/stretches.h"
#include "libcore/check/tensor_stats.h"

namespace ds::check {
namespace {

using kernels::DType;

// No real scale of this family is outside: 1e-4 / 448 is the smallest that quantising makes, and
// weights of a block above 1000 do not occur.
constexpr double kSmallestScale = 1e-9;
constexpr double kLargestScale = 16.0;
// Of a block's values one is the largest; many more are clipped ones.
constexpr double kSaturatedShare = 0.05;
constexpr std::uint8_t kHalfOfLargest = 0x76;  // 224
// The scale of blocks below 1e-4, whose codes may be small or all zero: 1e-4 / 448, or that rounded
// up to a power of two, 2^-22.
constexpr double kClampedScale = 2.4e-7;
constexpr double kUnlikeSiblings = 16.0;
constexpr std::size_t kFewSiblings = 4;
// Matrices with few siblings are compared with all others: 0.003 to 0.1 is what they have.
constexpr double kUnlikeAll = 128.0;
constexpr double kLargestWeight = 1e5;
constexpr double kZeroShare = 0.25;
constexpr std::uint64_t kSmallMatrix = 64;  // elements: below, equal contents may be chance
constexpr std::uint64_t kEnoughScales = 16;

// Statistics by entry.
std::vector<TensorStats> read_all(const TensorSurvey& survey, const DeepOptions& options) {
  std::vector<bool> is_scale(survey.entries().size());
  survey.each([&](std::int64_t, std::int64_t, const TensorSlot&, const TensorSurvey::Place& place) {
    if (place.scale >= 0) is_scale[static_cast<std::size_t>(place.scale)] = true;
  });
  std::vector<std::size_t> order(survey.entries().size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  // In the order of the bytes on disk.
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const auto& x = survey.entries()[a];
    const auto& y = survey.entries()[b];
    return x.file != y.file ? x.file->path() < y.file->path() : x.tensor->begin < y.tensor->begin;
  });
  std::vector<Stretch> stretches;
  std::vector<std::size_t> owner;  // entry of each
  for (const std::size_t entry : order) {
    const auto& [file, tensor] = survey.entries()[entry];
    for (std::uint64_t at = tensor->begin; at < tensor->end; at += kStretchBytes) {
      stretches.push_back({&file->file(), at, std::min(tensor->end, at + kStretchBytes)});
      owner.push_back(entry);
    }
  }
  std::vector<TensorStats> parts(stretches.size());
  read_stretches(stretches, options, [&](std::size_t i, std::span<const std::byte> bytes) {
    const DType dtype = survey.entries()[owner[i]].tensor->dtype;
    TensorStats piece = scan(dtype, bytes);
    if (dtype == DType::kF32 && is_scale[owner[i]]) scan_scales(bytes, piece);
    append(parts[i], piece);
  });
  std::vector<TensorStats> stats(survey.entries().size());
  for (std::size_t i = 0; i < stretches.size(); ++i) append(stats[owner[i]], parts[i]);
  return stats;
}

class DataCheck {
 public:
  // `config`: config.json as findings name it, `ue8m0`: what its scale_fmt says.
  DataCheck(const TensorSurvey& survey, std::vector<TensorStats> stats, std::string config,
            bool ue8m0, Findings& findings)
      : survey_(survey),
        stats_(std::move(stats)),
        findings_(findings),
        config_(std::move(config)),
        ue8m0_(ue8m0) {}

  void run() {
    for (const std::int32_t entry : survey_.unknown()) finite(entry, "");
    survey_.each([&](std::int64_t layer, std::int64_t, const TensorSlot& slot,
                     const TensorSurvey::Place& place) {
      const std::string& kind = slot.kind;
      if (place.scale >= 0) scale(place.scale, kind);
      if (place.weight >= 0) weight(layer, kind, slot, place);
    });
    identical();
    siblings();
    if (!ue8m0_ && scales_ >= kEnoughScales && with_mantissa_ == 0 && odd_scales_ == 0) {
      findings_.add(
          "ue8m0-possible",
          {.file = config_,
           .key = "quantization_config.scale_fmt",
           .message = fmt::format("{}: scale_fmt is absent, but all {} scales are powers "
                                  "of two",
                                  config_, format_count(static_cast<std::int64_t>(scales_))),
           .found = "absent",
           .expected = "ue8m0"});
    }
    alike_.flush(findings_);
  }

 private:
  const TensorStats& stats(std::int32_t entry) const {
    return stats_[static_cast<std::size_t>(entry)];
  }
  Finding about(std::int32_t entry, const std::string& what) const {
    const std::string name(survey_.tensor(entry).name);
    return {
        .file = survey_.file(entry),
        .tensor = name,
        .message = fmt::format("{}: tensor {} {}", survey_.file(entry), quote_text(name), what)};
  }
  // "[3, 17]" of the element counted from the tensor's first.
  std::string position(std::int32_t entry, std::uint64_t element) const {
    const auto& shape = survey_.tensor(entry).shape;
    std::vector<std::uint64_t> at(shape.size());
    for (std::size_t axis = shape.size(); axis-- > 0;) {
      const auto extent = static_cast<std::uint64_t>(shape[axis]);
      at[axis] = element % extent;
      element /= extent;
    }
    std::string text = "[";
    for (std::size_t i = 0; i < at.size(); ++i) text += (i > 0 ? ", " : "") + std::to_string(at[i]);
    return text + "]";
  }
  void add(const char* rule, const std::string& kind, std::int32_t entry, const std::string& what) {
    alike_.add(rule, kind, "", "", [&] { return about(entry, what); });
  }

  void finite(std::int32_t entry, const std::string& kind) {
    const TensorStats& s = stats(entry);
    const DType dtype = survey_.tensor(entry).dtype;
    if (s.bad == 0 || dtype == DType::kU8 || dtype == DType::kF8E8M0) return;
    const bool fp8 = dtype == DType::kF8E4M3;
    add(fp8 ? "fp8-nan" : "weight-not-finite", kind, entry,
        fmt::format("has {} {}, the first at {}", format_count(static_cast<std::int64_t>(s.bad)),
                    fp8 ? "NaN codes" : "values that are not finite",
                    position(entry, s.first_bad)));
  }

  void scale(std::int32_t entry, const std::string& kind) {
    const TensorStats& s = stats(entry);
    const DType dtype = survey_.tensor(entry).dtype;
    if (s.bad > 0) {
      add("scale-not-finite", kind, entry,
          fmt::format("is a scale that is not finite at {}", position(entry, s.first_bad)));
      ++odd_scales_;
    }
    if (dtype != DType::kF32) return;
    scales_ += s.elements;
    if (s.not_positive > 0) {
      add("scale-not-positive", kind, entry,
          fmt::format("is a scale with {} values that are zero or negative, the first at {}",
                      s.not_positive, position(entry, s.first_not_positive)));
      ++odd_scales_;
    }
    with_mantissa_ += s.mantissa;
    if (ue8m0_ && s.mantissa > 0) {
      add("ue8m0-mantissa", kind, entry,
          fmt::format("has {} scales that are no power of two, the first at {}; scale_fmt is ue8m0",
                      s.mantissa, position(entry, s.first_mantissa)));
    }
    if (s.largest > kLargestScale || (s.smallest > 0.0 && s.smallest < kSmallestScale)) {
      add("scale-range", kind, entry,
          fmt::format("has scales from {:.3g} to {:.3g}, usual are {:g} to {:g}", s.smallest,
                      s.largest, kSmallestScale, kLargestScale));
    }
  }

  void weight(std::int64_t layer, const std::string& kind, const TensorSlot& slot,
              const TensorSurvey::Place& place) {
    const std::int32_t entry = place.weight;
    const TensorInfo& tensor = survey_.tensor(entry);
    const TensorStats& s = stats(entry);
    finite(entry, kind);
    const bool fp8 = tensor.dtype == DType::kF8E4M3;
    if (!fp8 && s.largest > kLargestWeight) {
      add("weight-range", kind, entry,
          fmt::format("has values up to {:.3g}, usual are less than {:g}", s.largest,
                      kLargestWeight));
    }
    if (s.zero && slot.role == TensorRole::kNorm) {
      add("zero-tensor", kind, entry, "is zero everywhere");
      return;
    }
    if (tensor.shape.size() != 2 || s.elements < kSmallMatrix) return;
    if (s.zero) {
      add("zero-tensor", kind, entry, "is zero everywhere");
      return;
    }
    if (s.uniform) {
      add("constant-tensor", kind, entry, "has the same value everywhere");
      return;
    }
    const double zeros = static_cast<double>(s.zeros) / static_cast<double>(s.elements);
    // A block that was zero when it was quantised says so in its scale.
    const double smallest = fp8 && place.scale >= 0 ? stats(place.scale).smallest : 0.0;
    const bool zero_block = smallest > 0.0 && smallest <= kClampedScale;
    if (zeros > kZeroShare && !zero_block) {
      add("many-zeros", kind, entry,
          fmt::format("is zero in {:.0f} % of its elements", 100 * zeros));
    }
    double magnitude = s.rms();
    if (fp8 && place.scale >= 0) {
      const TensorStats& scales = stats(place.scale);
      if (survey_.tensor(place.scale).dtype == DType::kF32) {
        magnitude *= scales.rms();
        const bool clamped = scales.largest <= kClampedScale;
        if (s.largest_code < kHalfOfLargest && !clamped && s.bad == 0) {
          kernels::fp8_e4m3 code;
          code.bits = s.largest_code;
          add("codes-below-scale", kind, entry,
              fmt::format("has codes up to {:g} only; quantised with its scale the largest would "
                          "be above 224",
                          static_cast<float>(code)));
        }
      } else {
        magnitude = 0.0;
      }
    }
    if (fp8) {
      const double share = static_cast<double>(s.saturated) / static_cast<double>(s.elements);
      if (share > kSaturatedShare) {
        add("saturated", kind, entry,
            fmt::format("has {:.1f} % of its codes at the largest magnitude", 100.0 * share));
      }
    }
    // Prediction layers hold copies of the embedding and the head.
    const bool main = slot.role == TensorRole::kEmbedding && layer < 0;
    if (slot.role != TensorRole::kMatrix && slot.role != TensorRole::kRouter && !main) return;
    digests_[{s.digest, tensor.bytes()}].push_back(entry);
    if (layer >= 0 && magnitude > 0.0 && std::isfinite(magnitude)) {
      magnitudes_[kind].emplace_back(magnitude, entry);
    }
  }

  void identical() {
    for (const auto& [digest, entries] : digests_) {
      if (entries.size() < 2) continue;
      const std::string first(survey_.tensor(entries.front()).name);
      for (std::size_t i = 1; i < entries.size(); ++i) {
        add("identical-tensors", first, entries[i],
            fmt::format("has the same bytes as {}", quote_text(first)));
      }
    }
  }

  void siblings() {
    std::vector<double> all;
    for (const auto& [kind, list] : magnitudes_) {
      for (const auto& [magnitude, entry] : list) all.push_back(magnitude);
    }
    for (auto& [kind, list] : magnitudes_) {
      const bool few = list.size() < kFewSiblings;
      if (few && all.size() < kFewSiblings) continue;
      std::vector<double> own;
      for (const auto& [magnitude, entry] : list) own.push_back(magnitude);
      const double middle = few ? median(all) : median(own);
      const double factor = few ? kUnlikeAll : kUnlikeSiblings;
      for (const auto& [magnitude, entry] : list) {
        if (magnitude < middle * factor && magnitude > middle / factor) continue;
        add("unlike-siblings", kind, entry,
            fmt::format("has root mean square {:.3g}, {} have {:.3g}", magnitude,
                        few ? "other matrices" : "its siblings", middle));
      }
    }
  }
  static double median(std::vector<double>& values) {
    const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
    std::nth_element(values.begin(), middle, values.end());
    return *middle;
  }

  const TensorSurvey& survey_;
  const std::vector<TensorStats> stats_;
  Findings& findings_;
  std::string config_;
  bool ue8m0_;
  std::uint64_t scales_ = 0;
  std::uint64_t with_mantissa_ = 0;
  std::uint64_t odd_scales_ = 0;
  std::map<std::pair<std::uint64_t, std::uint64_t>, std::vector<std::int32_t>> digests_;
  std::map<std::string, std::vector<std::pair<double, std::int32_t>>> magnitudes_;
  Alike alike_;
};

}  // namespace

void check_data(const CheckpointTarget& target, const TensorSurvey& survey,
                const DeepOptions& options, Findings& findings) {
  const nlohmann::json& config = *target.json();
  const auto block = config.find("quantization_config");
  const bool ue8m0 = block != config.end() && block->is_object() && block->contains("scale_fmt") &&
                     block->at("scale_fmt") == "ue8m0";
  DataCheck(survey, read_all(survey, options), target.path_of("config.json"), ue8m0, findings)
      .run();
}

void check_data(const SafetensorsFile& file, const DeepOptions& options, Findings& findings) {
  std::vector<Checkpoint::Entry> entries;
  for (const std::uint32_t at : file.name_order()) entries.push_back({&file, &file.tensors()[at]});
  const ExpectedTensors none{ModelConfig{}};
  const TensorSurvey survey(none, entries);
  DataCheck(survey, read_all(survey, options), "", false, findings).run();
}

}  // namespace ds::check
