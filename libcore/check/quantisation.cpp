#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "libcore/base/format.h"
#include "libcore/check/alike.h"
#include "libcore/check/checks.h"
#include "libcore/check/expected_tensors.h"
#include "libcore/check/foreign_names.h"
#include "libcore/io/safetensors_header.h"

namespace ds::check {
namespace {

using kernels::DType;
using nlohmann::json;

constexpr std::int64_t kBlock = 128;

bool is_e4m3(DType dtype) { return dtype == DType::kF8E4M3; }
bool is_other_fp8(DType dtype) {
  return dtype == DType::kF8E5M2 || dtype == DType::kF8E4M3Fnuz || dtype == DType::kF8E5M2Fnuz;
}
bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16;
}

class QuantisationCheck {
 public:
  QuantisationCheck(const CheckpointTarget& target, const TensorSurvey& survey, Findings& findings)
      : target_(target),
        survey_(survey),
        findings_(findings),
        config_file_(target.path_of("config.json")) {
    const json& config = *target.json();
    if (config.contains("quantization_config") && config.at("quantization_config").is_object()) {
      settings_ = config.at("quantization_config");
      declared_ = true;
    }
    const auto method = settings_.find("quant_method");
    other_method_ = declared_ && (method == settings_.end() || *method != "fp8");
    const auto format = settings_.find("scale_fmt");
    ue8m0_ = format != settings_.end() && *format == "ue8m0";
    for (const char* key : {"modules_to_not_convert", "ignored_layers"}) {
      const auto list = settings_.find(key);
      if (list == settings_.end() || !list->is_array()) continue;
      for (const json& entry : *list) {
        if (entry.is_string()) excluded_.push_back({entry.get<std::string>(), key, false});
      }
    }
  }

  void run() {
    foreign();
    survey_.each([&](std::int64_t layer, std::int64_t expert, const TensorSlot& slot,
                     const TensorSurvey::Place& place) { one(layer, expert, slot, place); });
    pairs();
    declaration();
    exclusions();
    alike_.flush(findings_);
  }

 private:
  struct Exclusion {
    std::string text;
    const char* key;
    bool matched;
  };

  Finding about(std::int32_t entry, const std::string& what) const {
    const std::string name(survey_.tensor(entry).name);
    return {
        .file = survey_.file(entry),
        .tensor = name,
        .message = fmt::format("{}: tensor {} {}", survey_.file(entry), quote_text(name), what)};
  }
  static std::string scale_name(const TensorInfo& weight) {
    return std::string(weight.name) + "_scale_inv";
  }

  // Whether modules_to_not_convert names the module of `tensor`.
  bool excluded(std::string_view tensor) {
    bool any = false;
    for (Exclusion& entry : excluded_) {
      if (tensor.find(entry.text) == std::string::npos) continue;
      entry.matched = true;
      any = true;
    }
    return any;
  }

  void one(std::int64_t layer, std::int64_t expert, const TensorSlot& slot,
           const TensorSurvey::Place& place) {
    if (place.weight < 0) {
      if (place.scale >= 0) scale_alone(layer, expert, slot, place.scale);
      return;
    }
    const TensorInfo& weight = survey_.tensor(place.weight);
    const std::string& kind = slot.kind;
    const std::string_view dtype = kernels::dtype_name(weight.dtype);
    if (is_other_fp8(weight.dtype)) {
      alike_.add("fp8-format", kind, dtype, "F8_E4M3", [&] {
        return about(place.weight, fmt::format("is {}, needed is F8_E4M3", dtype));
      });
    } else if (is_e4m3(weight.dtype) && slot.role != TensorRole::kMatrix) {
      alike_.add("must-not-be-fp8", kind, dtype, "BF16",
                 [&] { return about(place.weight, "is FP8, it must stay in BF16 or F32"); });
    }
    const bool out = !excluded_.empty() && excluded(weight.name);
    if (slot.role == TensorRole::kMatrix) {
      if (is_e4m3(weight.dtype)) ++quantised_;
      if (is_float(weight.dtype) && !out) plain_.push_back(place.weight);
      if (is_e4m3(weight.dtype) && out) {
        alike_.add("excluded-is-fp8", kind, dtype, "BF16", [&] {
          return about(place.weight, "is FP8, modules_to_not_convert excludes it");
        });
      }
    }
    // What must not be FP8 at all needs no scale.
    if (is_e4m3(weight.dtype) && slot.role == TensorRole::kMatrix && place.scale < 0 &&
        !target_.unreadable(scale_name(weight))) {
      alike_.add("fp8-without-scale", kind, "no scale", scale_name(weight), [&] {
        return about(place.weight,
                     fmt::format("is FP8 and has no scale \"{}_scale_inv\"", weight.name));
      });
    }
    if (place.scale >= 0) scale(kind, weight, place.scale);
  }

  void scale_alone(std::int64_t layer, std::int64_t expert, const TensorSlot& slot,
                   std::int32_t entry) {
    const std::string weight = join_name(layer, expert, slot.stem);
    if (target_.unreadable(weight)) return;
    alike_.add("scale-without-weight", slot.kind, "", "", [&] {
      return about(entry, fmt::format("is the scale of \"{}\", which is absent", weight));
    });
  }

  void scale(const std::string& kind, const TensorInfo& weight, std::int32_t entry) {
    const TensorInfo& scale = survey_.tensor(entry);
    const std::string_view dtype = kernels::dtype_name(scale.dtype);
    if (!is_e4m3(weight.dtype) && !is_other_fp8(weight.dtype)) {
      if (!is_float(weight.dtype)) return;  // unsupported-dtype
      const std::string found(kernels::dtype_name(weight.dtype));
      alike_.add("scale-of-unquantised", kind, found, "F8_E4M3", [&] {
        return about(entry, fmt::format("is a scale, but \"{}\" is {}", weight.name, found));
      });
      return;
    }
    if (weight.shape.size() == 2) {
      const std::array<std::int64_t, 2> needed{(weight.shape[0] + kBlock - 1) / kBlock,
                                               (weight.shape[1] + kBlock - 1) / kBlock};
      if (!std::ranges::equal(scale.shape, needed)) {
        const std::string found = shape_text(scale.shape);
        const std::string expected = shape_text(needed);
        alike_.add("scale-shape", kind, found, expected, [&] {
          return about(entry, fmt::format("has shape {}, blocks of 128 x 128 of the weight's {} "
                                          "need {}",
                                          found, shape_text(weight.shape), expected));
        });
      }
    }
    const bool exponents = scale.dtype == DType::kF8E8M0 || scale.dtype == DType::kU8;
    if (scale.dtype == DType::kBF16 || scale.dtype == DType::kF16) {
      alike_.add("narrow-scale", "", dtype, "F32",
                 [&] { return about(entry, fmt::format("is {}, needed is F32", dtype)); });
    } else if (scale.dtype != DType::kF32 && !exponents) {
      alike_.add("scale-dtype", kind, dtype, "F32 (or F8_E8M0)", [&] {
        return about(entry, fmt::format("is {}, needed is F32 (or F8_E8M0)", dtype));
      });
    } else if (exponents && !ue8m0_) {
      alike_.add("ue8m0-undeclared", "", dtype, "scale_fmt ue8m0", [&] {
        return about(entry, fmt::format("is {}, but scale_fmt is not ue8m0", dtype));
      });
    }
  }

  // gate_proj and up_proj of one MLP.
  void pairs() {
    const auto compare = [&](const LayerPlan& plan, const TensorSurvey::Place* places,
                             const std::string& prefix) {
      const int gate = plan.find(prefix + "gate_proj.weight");
      const int up = plan.find(prefix + "up_proj.weight");
      if (gate < 0 || up < 0 || places[gate].weight < 0 || places[up].weight < 0) return;
      const DType a = survey_.tensor(places[gate].weight).dtype;
      const DType b = survey_.tensor(places[up].weight).dtype;
      // Other dtypes have findings of their own.
      if (!(is_e4m3(a) && is_float(b)) && !(is_float(a) && is_e4m3(b))) return;
      const std::string found =
          fmt::format("{} and {}", kernels::dtype_name(a), kernels::dtype_name(b));
      alike_.add("unquantised-pair", prefix + "gate_proj, up_proj", found, "one form", [&] {
        return about(places[gate].weight,
                     fmt::format("is {} and its up_proj is {}", kernels::dtype_name(a),
                                 kernels::dtype_name(b)));
      });
    };
    const ExpectedTensors& expected = survey_.expected();
    for (std::int64_t l = 0; l < expected.layers(); ++l) {
      const LayerPlan& plan = expected.layer(l);
      compare(plan, survey_.layer(l), "mlp.");
      compare(plan, survey_.layer(l), "mlp.shared_experts.");
      for (std::int64_t e = 0; plan.moe && e < expected.experts(); ++e) {
        compare(expected.expert(), survey_.expert(l, e), "");
      }
    }
  }

  void declaration() {
    if (quantised_ > 0 && !declared_) {
      findings_.add("fp8-undeclared",
                    {.file = config_file_,
                     .key = "quantization_config",
                     .message = fmt::format("{}: {} weights are FP8, but there is no "
                                            "quantization_config",
                                            config_file_, format_count(quantised_)),
                     .found = "absent",
                     .expected = "quant_method fp8"});
    }
    if (quantised_ == 0 && declared_ && !other_method_ && !plain_.empty()) {
      findings_.add(
          "fp8-declared-only",
          {.file = config_file_,
           .key = "quantization_config",
           .message =
               fmt::format("{}: quantization_config says fp8, but all {} weights "
                           "are {}",
                           config_file_, format_count(static_cast<std::int64_t>(plain_.size())),
                           kernels::dtype_name(survey_.tensor(plain_.front()).dtype)),
           .found = std::string(kernels::dtype_name(survey_.tensor(plain_.front()).dtype)),
           .expected = "F8_E4M3"});
    }
    if (quantised_ > 0) {
      for (const std::int32_t entry : plain_) {
        const std::string dtype(kernels::dtype_name(survey_.tensor(entry).dtype));
        alike_.add("partly-quantised", "", dtype, "F8_E4M3", [&] {
          return about(entry, fmt::format("is {}, {} other weights are FP8", dtype,
                                          format_count(quantised_)));
        });
      }
    }
  }

  void exclusions() {
    for (const Exclusion& entry : excluded_) {
      if (entry.matched) continue;
      findings_.add("unmatched-exclusion",
                    {.file = config_file_,
                     .key = fmt::format("quantization_config.{}", entry.key),
                     .message = fmt::format("{}: {} names {}, which no tensor of the model has",
                                            config_file_, entry.key, quote_text(entry.text)),
                     .found = entry.text});
    }
  }

  void foreign() {
    for (const std::int32_t entry : survey_.unknown()) {
      const std::string name(survey_.tensor(entry).name);
      if (!is_foreign_quantisation(name)) continue;
      const std::string ending = name.substr(name.rfind('.') + 1);
      alike_.add("foreign-quantisation", ending, ending, "weight, weight_scale_inv",
                 [&] { return about(entry, "belongs to another quantisation"); });
    }
  }

  const CheckpointTarget& target_;
  const TensorSurvey& survey_;
  Findings& findings_;
  std::string config_file_;
  json settings_ = json::object();
  bool declared_ = false;
  bool other_method_ = false;
  bool ue8m0_ = false;
  std::vector<Exclusion> excluded_;
  std::int64_t quantised_ = 0;
  std::vector<std::int32_t> plain_;  // linear weights in 16 or 32 bits that are not excluded
  Alike alike_;
};

}  // namespace

bool is_foreign_quantisation(std::string_view name) {
  constexpr std::array<std::string_view, 16> kEndings{
      ".weight_scale", ".input_scale", ".qweight",        ".qzeros",
      ".scales",       ".g_idx",       ".weight_packed",  ".weight_zero_point",
      ".weight_shape", ".scale",       ".weight_scale_2", ".absmax",
      ".quant_map",    ".quant_state", ".scale_inv",      ".input_scale_inv"};
  return std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

void check_quantisation(const CheckpointTarget& target, const TensorSurvey& survey,
                        Findings& findings) {
  QuantisationCheck(target, survey, findings).run();
}

}  // namespace ds::check
