#include "tools/convert/hf_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>

#include "libcore/base/error.h"
#include "tools/convert/config_json.h"
#include "tools/convert/encode.h"

namespace ds::convert {

namespace {

constexpr std::size_t kMostProblems = 20;

class HfPlanner {
 public:
  HfPlanner(const Source& source, const WeightsSettings& settings, cli::Run& run)
      : source_(source), settings_(settings) {
    const std::string& to = settings.to;
    if (to == "bf16") dtype_ = DType::kBF16;
    if (to == "f16") dtype_ = DType::kF16;
    if (to == "f32") dtype_ = DType::kF32;
    if (settings.scale_fmt != "auto") {
      format_ = settings.scale_fmt == "ue8m0" ? ScaleFormat::kUe8m0 : ScaleFormat::kF32;
    } else if (source.config.quantization && source.config.quantization->scale_fmt == "ue8m0") {
      format_ = ScaleFormat::kUe8m0;
    }
    if (settings.scale_dtype == "e8m0") {
      if (format_ != ScaleFormat::kUe8m0) {
        throw Error(ExitCode::kUsage, "--scale_dtype e8m0 holds powers of two only",
                    "add --scale_fmt ue8m0");
      }
      scale_dtype_ = DType::kF8E8M0;
    }
    if (!settings.reuse_scales_from.empty()) {
      scales_ = open_source(settings.reuse_scales_from, run).checkpoint;
    }
  }

  OutputPlan plan() {
    for (const Checkpoint::Entry& entry : source_.checkpoint.entries()) add(entry);
    if (!problems_.empty()) refuse();
    if (scales_) refuse_unused_scales();
    OutputPlan plan;
    plan.identity = fmt::format("{} {} {} {} {}\n{}{}", settings_.to, settings_.scale_dtype,
                                format_ == ScaleFormat::kUe8m0 ? "ue8m0" : "f32", settings_.mtp,
                                settings_.allow_overflow, identity_of(source_.checkpoint),
                                scales_ ? identity_of(*scales_) : "");
    const std::uint64_t limit = shard_limit(settings_.max_shard_size);
    CheckpointPlan files = plan_checkpoint(units_, limit);
    add_texts(plan, config(), source_.folder, files);
    plan.files = std::move(files.files);
    // The checkpoint must outlive its recipes.
    if (scales_) plan.keeps.push_back(std::make_shared<Checkpoint>(std::move(*scales_)));
    return plan;
  }

 private:
  void add(const Checkpoint::Entry& entry) {
    const TensorInfo& tensor = *entry.tensor;
    if (settings_.mtp == "drop" && is_mtp(tensor.name, source_.config)) return;
    const std::string_view owner = weight_of_scale(tensor.name);
    if (!owner.empty()) {
      const TensorInfo* weight = source_.checkpoint.find(owner).tensor;
      if (weight == nullptr || weight->dtype != DType::kF8E4M3) {
        problems_.push_back(
            weight == nullptr ? fmt::format("scale {} has no weight {}", tensor.name, owner)
                              : fmt::format("scale {} belongs to a weight that is {}, not F8_E4M3",
                                            tensor.name, dtype_name(weight->dtype)));
      }
      return;  // goes with its weight
    }
    if (tensor.dtype == DType::kF8E4M3) {
      add_fp8(entry);
    } else if (dtype_ && is_wide(tensor.dtype) && is_parameter(tensor.name) &&
               tensor.dtype != *dtype_) {
      push(tensor, *dtype_, cast_recipe(stored_matrix(entry, {}), *dtype_, overflow()));
    } else if (settings_.to == "fp8" && is_wide(tensor.dtype) && wants_fp8(tensor)) {
      push_quantised(entry, stored_matrix(entry, {}));
    } else {
      push(tensor, tensor.dtype, copy_recipe(entry));
    }
  }

  void add_fp8(const Checkpoint::Entry& entry) {
    const TensorInfo& tensor = *entry.tensor;
    const Checkpoint::Entry scale =
        source_.checkpoint.find(std::string(tensor.name).append(kScaleSuffix));
    const std::string problem = scale_problem(tensor, scale.tensor);
    if (!problem.empty()) {
      problems_.push_back(problem);
    } else if (dtype_) {
      push(tensor, *dtype_, cast_recipe(stored_matrix(entry, scale), *dtype_, overflow()));
    } else if (settings_.to == "hf") {
      push(tensor, tensor.dtype, copy_recipe(entry));
      push(*scale.tensor, scale.tensor->dtype, copy_recipe(scale));
    } else if (scales_ || (format_ == ScaleFormat::kUe8m0 && !all_powers_of_two(scale))) {
      push_quantised(entry, stored_matrix(entry, scale));
    } else {
      // The codes keep their values; other writers' scale dtypes become F32, exactly.
      push(tensor, tensor.dtype, copy_recipe(entry));
      push(*scale.tensor, scale_dtype_,
           scale.tensor->dtype == scale_dtype_ ? copy_recipe(scale)
                                               : scale_recipe(scale, scale_dtype_));
    }
  }

  bool overflow() const { return settings_.allow_overflow; }

  bool wants_fp8(const TensorInfo& tensor) const {
    if (!scales_) return is_fp8_kind(tensor);
    const TensorInfo* there = scales_->find(tensor.name).tensor;
    return there != nullptr && there->dtype == DType::kF8E4M3;
  }

  bool all_powers_of_two(const Checkpoint::Entry& scale) {
    const std::int64_t rows = scale.tensor->shape[0];
    const ConstView values = read_scale(scale, 0, rows, bench_);
    for (std::int64_t i = 0; i < values.size(); ++i) {
      std::uint32_t bits = 0;
      std::memcpy(&bits, values.as<float>() + i, sizeof bits);
      if ((bits & 0x807fffffU) != 0 || bits == 0) return false;
    }
    return true;
  }

  void push(const TensorInfo& tensor, DType dtype, std::shared_ptr<const Recipe> recipe) {
    units_.push_back({{{std::string(tensor.name), dtype, tensor.shape.copy()}}, std::move(recipe)});
  }

  void push_quantised(const Checkpoint::Entry& entry, MatrixPtr matrix) {
    const TensorInfo& tensor = *entry.tensor;
    const std::string name = std::string(tensor.name).append(kScaleSuffix);
    const std::vector<std::int64_t> shape{(tensor.shape[0] + 127) / 128,
                                          (tensor.shape[1] + 127) / 128};
    if (!scales_) {
      units_.push_back({{{std::string(tensor.name), DType::kF8E4M3, tensor.shape.copy()},
                         {name, scale_dtype_, shape}},
                        quantise_recipe(std::move(matrix), format_, scale_dtype_)});
      return;
    }
    const Checkpoint::Entry scale = scales_->find(name);
    const std::string problem =
        scale_problem({tensor.name, DType::kF8E4M3, tensor.shape, 0, 0}, scale.tensor);
    if (!problem.empty()) {
      problems_.push_back("--reuse_scales_from: " + problem);
      return;
    }
    units_.push_back({{{std::string(tensor.name), DType::kF8E4M3, tensor.shape.copy()},
                       {name, scale.tensor->dtype, shape}},
                      quantise_recipe(std::move(matrix), scale)});
  }

  // A weight of the other checkpoint that this one lacks would come out half converted.
  void refuse_unused_scales() {
    for (const Checkpoint::Entry& entry : scales_->entries()) {
      const TensorInfo& tensor = *entry.tensor;
      if (tensor.dtype != DType::kF8E4M3) continue;
      if (settings_.mtp == "drop" && is_mtp(tensor.name, source_.config)) continue;
      if (source_.checkpoint.find(tensor.name).tensor != nullptr) continue;
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: no tensor {}, which is FP8 in {}", source_.folder.string(),
                              tensor.name, scales_->folder().string()),
                  "give the checkpoint this one was made from, or --mtp drop");
    }
  }

  [[noreturn]] void refuse() const {
    std::string text = problems_[0];
    for (std::size_t i = 1; i < std::min(problems_.size(), kMostProblems); ++i) {
      text += "; " + problems_[i];
    }
    if (problems_.size() > kMostProblems) {
      text += fmt::format("; and {} more", problems_.size() - kMostProblems);
    }
    throw Error(ExitCode::kBadInput, source_.folder.string() + ": " + text,
                "nothing was written: restore these tensors first");
  }

  nlohmann::ordered_json config() const {
    nlohmann::ordered_json json = source_.json;
    if (dtype_) {
      set_dtype(json, settings_.to == "bf16"  ? "bfloat16"
                      : settings_.to == "f16" ? "float16"
                                              : "float32");
    } else if (settings_.to == "fp8") {
      const bool powers =
          scales_ ? scale_fmt_of(scales_->folder()) == "ue8m0" : format_ == ScaleFormat::kUe8m0;
      set_fp8(json, powers ? "ue8m0" : "");
    }
    if (settings_.mtp == "drop" && json.contains("num_nextn_predict_layers")) {
      json["num_nextn_predict_layers"] = 0;
    }
    return json;
  }
  static std::string scale_fmt_of(const std::filesystem::path& folder) {
    const ModelConfig config = load_model_config(folder);
    return config.quantization ? config.quantization->scale_fmt : "";
  }

  const Source& source_;
  const WeightsSettings& settings_;
  std::optional<DType> dtype_;
  ScaleFormat format_ = ScaleFormat::kF32;
  DType scale_dtype_ = DType::kF32;
  std::optional<Checkpoint> scales_;
  std::vector<Unit> units_;
  std::vector<std::string> problems_;
  Workbench bench_;
};

}  // namespace

OutputPlan plan_hf(const Source& source, const WeightsSettings& settings, cli::Run& run) {
  return HfPlanner(source, settings, run).plan();
}

void add_texts(OutputPlan& plan, const nlohmann::ordered_json& config,
               const std::filesystem::path& folder, const CheckpointPlan& files) {
  plan.texts = side_files(folder);
  plan.texts["config.json"] = config_text(config);
  if (!files.index.empty()) plan.texts["model.safetensors.index.json"] = files.index;
}

}  // namespace ds::convert
