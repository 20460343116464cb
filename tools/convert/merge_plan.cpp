#include "tools/convert/merge_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <optional>
#include <unordered_map>

#include "libcore/base/atomic_write.h"
#include "libcore/base/error.h"
#include "libcore/io/safetensors_header.h"
#include "tools/convert/config_json.h"
#include "tools/convert/hf_plan.h"

namespace ds::convert {

namespace {

constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kHead = "lm_head.weight";

class MergePlanner {
 public:
  MergePlanner(const Source& source, const AdapterFolder& adapter, const MergeSettings& settings,
               MergeReport& report, cli::Run& run)
      : source_(source), adapter_(adapter), settings_(settings), report_(report), run_(run) {
    if (settings.dtype == "bf16") dtype_ = DType::kBF16;
    if (settings.dtype == "f32") dtype_ = DType::kF32;
    if (source.config.quantization && source.config.quantization->scale_fmt == "ue8m0") {
      format_ = ScaleFormat::kUe8m0;
    }
  }

  MergePlan plan() {
    collect();
    for (const Checkpoint::Entry& entry : source_.checkpoint.entries()) add(entry);
    plan_.output.identity =
        fmt::format("merge {} {}\n{}{}{}", settings_.dtype, settings_.max_shard_size,
                    identity_of(source_.checkpoint), identity_of({&adapter_.file}),
                    read_file(adapter_.folder / kAdapterConfigFile));
    CheckpointPlan files;
    if (settings_.max_shard_size.empty()) {
      files = plan_checkpoint(units_, file_of_);
    } else {
      const std::uint64_t limit = shard_limit(settings_.max_shard_size);
      files = plan_checkpoint(units_, limit);
    }
    add_texts(plan_.output, config(), source_.folder, files);
    if (settings_.dtype == "keep") {
      plan_.output.texts["config.json"] = read_file(source_.folder / "config.json");
    }
    plan_.output.files = std::move(files.files);
    return std::move(plan_);
  }

 private:
  // Weights by name, each checked against the model's.
  void collect() {
    std::vector<std::string> lacking;
    for (const LowRankUpdate& update : adapter_.updates) {
      const std::string name = update.weight_name();
      if (source_.config.tie_word_embeddings && (name == kEmbedding || name == kHead)) {
        refuse(fmt::format("an adapter of {} cannot be merged: this model's embedding and head are "
                           "one tensor (tie_word_embeddings), of which the adapter changes one use",
                           update.module().path),
               "give the model separate tensors first, or train without this module");
      }
      const TensorInfo* tensor = source_.checkpoint.find(name).tensor;
      if (tensor == nullptr) {
        lacking.push_back(name);
        continue;
      }
      expect_shape(*tensor, {update.rows(), update.cols()});
      update.is_zero() ? ++plan_.zero : ++plan_.changed;
      if (!update.is_zero()) updates_.emplace(name, &update);
    }
    for (const WholeWeight& whole : adapter_.whole) {
      const TensorInfo* tensor = source_.checkpoint.find(whole.name).tensor;
      if (tensor == nullptr) {
        lacking.push_back(whole.name);
        continue;
      }
      if (!is_wide(whole.tensor->dtype)) {
        refuse(fmt::format("tensor '{}' of the adapter is {}, needed is F32, BF16 or F16",
                           whole.tensor->name, dtype_name(whole.tensor->dtype)),
               "store the adapter in one of these types");
      }
      expect_shape(*whole.tensor, tensor->shape.copy());
      // A copy that says what the base says, in its own dtype, changes nothing.
      if (whole.copy && same_values(source_.checkpoint.find(whole.name), *whole.tensor)) continue;
      whole_.emplace(whole.name, whole.tensor);
      ++plan_.replaced;
      if (whole.copy) {
        run_.warn(fmt::format("the adapter's copy of {} is not the model's: the copy is used",
                              whole.name));
      }
      warn_about_mtp(whole.name);
    }
    if (!lacking.empty()) {
      std::string names;
      for (std::size_t i = 0; i < std::min<std::size_t>(lacking.size(), 5); ++i) {
        names += (i == 0 ? "" : ", ") + lacking[i];
      }
      if (lacking.size() > 5) names += fmt::format(" and {} more", lacking.size() - 5);
      refuse(fmt::format("the model has no tensor {} that the adapter changes", names),
             "use the base model that this adapter was trained on");
    }
  }

  void expect_shape(const TensorInfo& tensor, const std::vector<std::int64_t>& needed) const {
    if (tensor.shape == needed) return;
    refuse(fmt::format("tensor {} has shape {}, needed is {}", tensor.name,
                       shape_text(tensor.shape), shape_text(needed)),
           "use the base model that this adapter was trained on");
  }

  [[noreturn]] void refuse(const std::string& text, const std::string& hint) const {
    throw Error(ExitCode::kBadInput, adapter_.file.path().string() + ": " + text, hint);
  }

  // Multi-token-prediction layers hold copies of embedding and head.
  void warn_about_mtp(const std::string& name) const {
    if (name != kEmbedding && name != kHead) return;
    const std::string copy =
        fmt::format("model.layers.{}.{}", source_.config.num_hidden_layers,
                    name == kEmbedding ? "embed_tokens.weight" : "shared_head.head.weight");
    if (source_.checkpoint.find(copy).tensor == nullptr) return;
    run_.warn(fmt::format("{} is replaced, its copy {} in the multi-token-prediction layer stays",
                          name, copy));
  }

  bool same_values(const Checkpoint::Entry& base, const TensorInfo& copy) {
    const MatrixPtr one = stored_matrix(base, {});
    const MatrixPtr other = stored_matrix({&adapter_.file, &copy}, {});
    const auto bytes = static_cast<std::size_t>(one->cols() * kernels::dtype_size(copy.dtype));
    for (std::int64_t row = 0; row < one->rows(); ++row) {
      const View ours(bench_.buffer(0, bytes), copy.dtype, {1, one->cols()});
      one->read_as(row, 1, ours, bench_);
      const std::byte* theirs = adapter_.file.data(copy) + static_cast<std::size_t>(row) * bytes;
      if (std::memcmp(ours.data(), theirs, bytes) != 0) return false;
    }
    return true;
  }

  void add(const Checkpoint::Entry& entry) {
    const TensorInfo& tensor = *entry.tensor;
    const std::string_view owner = weight_of_scale(tensor.name);
    if (!owner.empty()) {
      const TensorInfo* weight = source_.checkpoint.find(owner).tensor;
      if (weight != nullptr && weight->dtype == DType::kF8E4M3) return;  // goes with its weight
    }
    Checkpoint::Entry scale;
    if (tensor.dtype == DType::kF8E4M3) {
      scale = source_.checkpoint.find(std::string(tensor.name).append(kScaleSuffix));
      const std::string problem = scale_problem(tensor, scale.tensor);
      if (!problem.empty()) {
        throw Error(ExitCode::kBadInput, source_.folder.string() + ": " + problem,
                    "nothing was written: restore this tensor first");
      }
    }
    const auto update = updates_.find(std::string(tensor.name));
    const auto whole = whole_.find(std::string(tensor.name));
    if (update == updates_.end() && whole == whole_.end()) {
      plan_.other += 1;
      add_unchanged(entry, scale);
      return;
    }
    MatrixPtr base = whole == whole_.end() ? stored_matrix(entry, scale)
                                           : stored_matrix({&adapter_.file, whole->second}, {});
    const DType dtype = result_dtype(tensor);
    if (update == updates_.end()) {
      if (dtype == DType::kF8E4M3) {
        push_fp8(entry, quantise_recipe(std::move(base), format_));
      } else {
        push(entry, dtype, cast_recipe(std::move(base), dtype, false));
      }
    } else if (dtype == DType::kF8E4M3) {
      const bool codes = tensor.dtype == DType::kF8E4M3 && whole == whole_.end();
      // Scales of one byte stay what they are; those of other dtypes become F32.
      const bool bytes =
          codes && (scale.tensor->dtype == DType::kF8E8M0 || scale.tensor->dtype == DType::kU8);
      const DType scale_dtype = bytes ? scale.tensor->dtype : DType::kF32;
      push_fp8(
          entry,
          merge_fp8_recipe(std::move(base), *update->second, bytes ? ScaleFormat::kUe8m0 : format_,
                           codes ? entry : Checkpoint::Entry{}, scale, scale_dtype, report_),
          scale_dtype);
    } else {
      push(entry, dtype, merge_recipe(std::move(base), *update->second, dtype, report_));
    }
  }

  // As `weights --to` treats it.
  void add_unchanged(const Checkpoint::Entry& entry, const Checkpoint::Entry& scale) {
    const TensorInfo& tensor = *entry.tensor;
    const DType dtype = result_dtype(tensor);
    if (dtype == tensor.dtype) {
      push(entry, dtype, copy_recipe(entry));
      if (scale.tensor != nullptr) push(scale, scale.tensor->dtype, copy_recipe(scale));
    } else if (dtype == DType::kF8E4M3) {
      push_fp8(entry, quantise_recipe(stored_matrix(entry, {}), format_));
    } else {
      push(entry, dtype, cast_recipe(stored_matrix(entry, scale), dtype, false));
    }
  }

  DType result_dtype(const TensorInfo& tensor) const {
    const bool fp8 = tensor.dtype == DType::kF8E4M3;
    if (dtype_ && (fp8 || (is_wide(tensor.dtype) && is_parameter(tensor.name)))) {
      return *dtype_;
    }
    if (settings_.dtype == "fp8" && is_wide(tensor.dtype) && is_fp8_kind(tensor)) {
      return DType::kF8E4M3;
    }
    return tensor.dtype;
  }

  void push(const Checkpoint::Entry& entry, DType dtype, std::shared_ptr<const Recipe> recipe) {
    units_.push_back({{{std::string(entry.tensor->name), dtype, entry.tensor->shape.copy()}},
                      std::move(recipe)});
    file_of_.push_back(entry.file->path().filename().string());
  }
  void push_fp8(const Checkpoint::Entry& entry, std::shared_ptr<const Recipe> recipe,
                DType scale_dtype = DType::kF32) {
    const TensorInfo& tensor = *entry.tensor;
    units_.push_back({{{std::string(tensor.name), DType::kF8E4M3, tensor.shape.copy()},
                       {std::string(tensor.name).append(kScaleSuffix),
                        scale_dtype,
                        {(tensor.shape[0] + 127) / 128, (tensor.shape[1] + 127) / 128}}},
                      std::move(recipe)});
    file_of_.push_back(entry.file->path().filename().string());
  }

  nlohmann::ordered_json config() const {
    nlohmann::ordered_json json = source_.json;
    if (dtype_) set_dtype(json, settings_.dtype == "bf16" ? "bfloat16" : "float32");
    if (settings_.dtype == "fp8") set_fp8(json, format_ == ScaleFormat::kUe8m0 ? "ue8m0" : "");
    return json;
  }

  const Source& source_;
  const AdapterFolder& adapter_;
  const MergeSettings& settings_;
  MergeReport& report_;
  cli::Run& run_;
  std::optional<DType> dtype_;
  ScaleFormat format_ = ScaleFormat::kF32;
  std::unordered_map<std::string, const LowRankUpdate*> updates_;  // that are not zero
  std::unordered_map<std::string, const TensorInfo*> whole_;
  std::vector<Unit> units_;
  std::vector<std::string> file_of_;
  Workbench bench_;
  MergePlan plan_;
};

}  // namespace

MergePlan plan_merge(const Source& source, const AdapterFolder& adapter,
                     const MergeSettings& settings, MergeReport& report, cli::Run& run) {
  return MergePlanner(source, adapter, settings, report, run).plan();
}

}  // namespace ds::convert
