#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/config/gguf_names.h"
#include "libcore/io/safetensors_header.h"
#include "libcore/tensor/q8_0.h"
#include "tools/convert/encode.h"
#include "tools/convert/gguf_plan.h"
#include "tools/convert/gguf_recipe.h"
#include "tools/convert/gguf_tokenizer.h"

namespace ds::convert {

namespace {

using Kind = GgufTensorPlan::Kind;

constexpr std::size_t kMostProblems = 20;
constexpr std::uint32_t kQuantizationVersion = 2;

struct StorageType {
  const char* flag;
  GgmlType type;
  std::uint32_t file_type;  // general.file_type
};
constexpr std::array<StorageType, 4> kStorageTypes{{{"f32", GgmlType::kF32, 0},
                                                    {"f16", GgmlType::kF16, 1},
                                                    {"q8_0", GgmlType::kQ80, 7},
                                                    {"bf16", GgmlType::kBF16, 32}}};

StorageType storage_type(const std::string& flag) {
  for (const StorageType& type : kStorageTypes) {
    if (flag == type.flag) return type;
  }
  throw Error(ExitCode::kUsage,
              "--gguf_type " + quote_text(flag) + " is none of bf16, f16, f32, q8_0");
}

DType dtype_of(GgmlType type) {
  return type == GgmlType::kF16    ? DType::kF16
         : type == GgmlType::kBF16 ? DType::kBF16
                                   : DType::kF32;
}

class Exporter {
 public:
  Exporter(const Source& source, const WeightsSettings& settings, cli::Run& run)
      : source_(source),
        settings_(settings),
        run_(run),
        storage_(storage_type(settings.gguf_type)),
        mla_(settings.mla == "unsplit" ? GgufMla::kUnsplit : GgufMla::kSplit) {}

  OutputPlan plan() {
    for (const GgufTensorPlan& tensor : gguf_tensor_plan(source_.config, mla_)) add(tensor);
    look_for_unused();
    if (problems_ > 0) refuse();
    say_what_is_lost();
    OutputPlan plan;
    plan.identity = fmt::format("gguf {} {} {} {}\n{}", settings_.gguf_type, settings_.mla,
                                settings_.max_shard_size, settings_.allow_overflow,
                                identity_of(source_.checkpoint));
    lay_out(plan);
    return plan;
  }

 private:
  struct Made {
    GgufTensorToWrite tensor;
    std::shared_ptr<const Recipe> recipe;
    std::uint64_t bytes = 0;
  };

  // A source tensor of this name and shape; a null tensor and a problem when there is none.
  Checkpoint::Entry find(const std::string& name, const std::vector<std::int64_t>& shape) {
    const Checkpoint::Entry entry = source_.checkpoint.find(name);
    if (entry.tensor == nullptr) {
      problem("tensor " + name + " is missing");
      return {};
    }
    used_.insert(entry.tensor->name);
    if (entry.tensor->shape != shape) {
      problem(fmt::format("tensor {} is {}, config.json makes it {}", name,
                          shape_text(entry.tensor->shape), shape_text(shape)));
      return {};
    }
    if (entry.tensor->dtype != DType::kF8E4M3) return entry;
    const Checkpoint::Entry scale = scale_of(entry);
    if (scale.tensor != nullptr) used_.insert(scale.tensor->name);
    const std::string wrong = scale_problem(*entry.tensor, scale.tensor);
    if (wrong.empty()) return entry;
    problem(wrong);
    return {};
  }
  Checkpoint::Entry scale_of(const Checkpoint::Entry& entry) const {
    return source_.checkpoint.find(std::string(entry.tensor->name).append(kScaleSuffix));
  }

  GgmlType type_of(const GgufTensorPlan& tensor) {
    if (tensor.always_f32) return GgmlType::kF32;
    if (storage_.type != GgmlType::kQ80 || tensor.shape.back() % kQ8Values == 0) {
      return storage_.type;
    }
    ++fallbacks_;
    return GgmlType::kF16;
  }

  std::shared_ptr<const Recipe> recipe(MatrixPtr matrix, GgmlType type) const {
    if (type == GgmlType::kQ80) return q8_0_recipe(std::move(matrix));
    return cast_recipe(std::move(matrix), dtype_of(type), settings_.allow_overflow);
  }
  // Rows [row, row + rows) of a source tensor.
  RecipePart part(const Checkpoint::Entry& entry, std::int64_t row, std::int64_t rows,
                  GgmlType type) const {
    const std::int64_t cols = entry.tensor->shape.back();
    const std::uint64_t bytes =
        gguf_tensor_bytes({std::string(entry.tensor->name), type, {rows, cols}});
    if (type != GgmlType::kQ80 && entry.tensor->dtype == dtype_of(type)) {
      return {copy_recipe(entry, row, rows, 0, cols), bytes};
    }
    return {recipe(sub_matrix(stored_matrix(entry, scale_of(entry)), row, rows, 0, cols), type),
            bytes};
  }
  static std::int64_t rows_of(const Checkpoint::Entry& entry) {
    return entry.tensor->shape.size() == 1 ? 1 : entry.tensor->shape.front();
  }

  void add(const GgufTensorPlan& tensor) {
    const GgmlType type = type_of(tensor);
    std::vector<RecipePart> parts;
    for (std::int64_t i = 0; i < tensor.sources; ++i) {
      const Checkpoint::Entry entry = find(tensor.source_name(i), tensor.source_shape);
      if (entry.tensor == nullptr) continue;
      if (tensor.kind == Kind::kKeyB || tensor.kind == Kind::kValueB) {
        add_heads(tensor, entry, type, parts);
      } else {
        parts.push_back(part(entry, 0, rows_of(entry), type));
      }
    }
    if (problems_ > 0) return;
    Made made{{tensor.name, type, tensor.shape}, nullptr, 0};
    made.bytes = gguf_tensor_bytes(made.tensor);
    made.recipe = parts.size() == 1 ? parts.front().recipe : concat_recipe(std::move(parts));
    made_.push_back(std::move(made));
  }

  void add_heads(const GgufTensorPlan& tensor, const Checkpoint::Entry& entry, GgmlType type,
                 std::vector<RecipePart>& parts) const {
    const ModelConfig& c = source_.config;
    const std::int64_t head = c.qk_nope_head_dim + c.v_head_dim;
    for (std::int64_t h = 0; h < c.num_attention_heads; ++h) {
      if (tensor.kind == Kind::kValueB) {
        parts.push_back(part(entry, h * head + c.qk_nope_head_dim, c.v_head_dim, type));
        continue;
      }
      MatrixPtr keys = sub_matrix(stored_matrix(entry, scale_of(entry)), h * head,
                                  c.qk_nope_head_dim, 0, c.kv_lora_rank);
      parts.push_back(
          {recipe(transposed_matrix(std::move(keys)), type),
           gguf_tensor_bytes({tensor.name, type, {c.kv_lora_rank, c.qk_nope_head_dim}})});
    }
  }

  // What the file has no place for: MTP layers are left out, anything else is refused.
  void look_for_unused() {
    for (const Checkpoint::Entry& entry : source_.checkpoint.entries()) {
      const std::string name(entry.tensor->name);
      if (used_.contains(name)) continue;
      if (is_mtp(name, source_.config)) {
        ++mtp_tensors_;
      } else if (name == "lm_head.weight" && source_.config.tie_word_embeddings) {
        continue;  // the embedding once more
      } else if (!name.ends_with(".rotary_emb.inv_freq")) {
        problem("tensor " + name + " has no place in a deepseek2 file");
      }
    }
  }

  // Only the first ones are kept: a config may claim a million experts.
  void problem(const std::string& text) {
    if (++problems_ > kMostProblems) return;
    first_problems_ += (problems_ == 1 ? "" : "; ") + text;
  }

  [[noreturn]] void refuse() const {
    std::string text = first_problems_;
    if (problems_ > kMostProblems) text += fmt::format("; and {} more", problems_ - kMostProblems);
    throw Error(ExitCode::kBadInput, source_.folder.string() + ": " + text,
                "nothing was written: restore or remove these tensors first");
  }

  void say_what_is_lost() {
    if (mtp_tensors_ > 0) {
      run_.info(
          fmt::format("{} tensors of multi-token-prediction layers are left out: llama.cpp "
                      "has no place for them",
                      mtp_tensors_));
    }
    if (fallbacks_ > 0) {
      run_.warn(fmt::format("{} tensors are F16: their rows are no multiple of the 32 of Q8_0",
                            fallbacks_));
    }
    const auto& yarn = source_.config.yarn;
    if (!yarn) return;
    if (yarn->mscale != yarn->mscale_all_dim) {
      run_.warn(
          fmt::format("config.json has mscale {} and mscale_all_dim {}: a GGUF file holds "
                      "the second only",
                      yarn->mscale, yarn->mscale_all_dim));
    }
    if (!yarn->truncate) {
      run_.warn("config.json has truncate false in its rope settings: a GGUF file cannot say that");
    }
  }

  GgufKeyWriter keys() {
    GgufKeyWriter keys;
    keys.text("general.architecture", "deepseek2");
    keys.text("general.type", "model");
    const std::string name = std::filesystem::weakly_canonical(source_.folder).filename().string();
    if (!name.empty()) keys.text("general.name", name);
    for (const GgufMetadata& entry : gguf_metadata(source_.config, mla_)) {
      if (const auto* integer = std::get_if<std::int64_t>(&entry.value)) {
        if (*integer > static_cast<std::int64_t>(UINT32_MAX)) {
          throw Error(ExitCode::kBadInput,
                      fmt::format("config.json: {} is {}, a GGUF file holds at most 2^32 - 1",
                                  entry.key, *integer));
        }
        keys.u32(entry.key, static_cast<std::uint32_t>(*integer));
      } else if (const auto* number = std::get_if<double>(&entry.value)) {
        keys.f32(entry.key, static_cast<float>(*number));
      } else if (const auto* flag = std::get_if<bool>(&entry.value)) {
        keys.boolean(entry.key, *flag);
      } else {
        keys.text(entry.key, std::get<std::string>(entry.value));
      }
    }
    keys.u32("general.file_type", storage_.file_type);
    if (storage_.type == GgmlType::kQ80) {
      keys.u32("general.quantization_version", kQuantizationVersion);
    }
    std::vector<std::string> notes;
    add_tokenizer_keys(source_.folder, source_.config, keys, notes);
    for (const std::string& note : notes) run_.warn(note);
    return keys;
  }

  void lay_out(OutputPlan& plan) {
    const std::filesystem::path out =
        std::filesystem::path(settings_.out.output).lexically_normal();
    plan.single_file = out.extension() == ".gguf";
    const std::string name = (out.filename().empty() ? out.parent_path() : out).filename().string();
    const std::uint64_t limit = shard_limit(settings_.max_shard_size);
    std::vector<std::vector<const Made*>> parts(1);
    std::uint64_t held = 0;
    for (const Made& made : made_) {
      if (!plan.single_file && held > 0 && (made.bytes > limit || held > limit - made.bytes)) {
        parts.emplace_back();
        held = 0;
      }
      parts.back().push_back(&made);
      held += made.bytes;
    }
    for (std::size_t i = 0; i < parts.size(); ++i) {
      GgufKeyWriter header = i == 0 ? keys() : GgufKeyWriter();
      if (parts.size() > 1) {
        header.u16("split.no", static_cast<std::uint16_t>(i));
        header.u16("split.count", static_cast<std::uint16_t>(parts.size()));
        header.i32("split.tensors.count", static_cast<std::int32_t>(made_.size()));
      }
      std::string file_name = name;
      if (parts.size() > 1) {
        file_name = gguf_split_name(name, i + 1, parts.size());
      } else if (!plan.single_file) {
        file_name += ".gguf";
      }
      plan.files.push_back(make_file(file_name, header, parts[i]));
    }
  }

  static OutputFile make_file(const std::string& name, const GgufKeyWriter& header,
                              const std::vector<const Made*>& tensors) {
    std::vector<GgufTensorToWrite> list;
    for (const Made* made : tensors) list.push_back(made->tensor);
    GgufLayout layout = layout_gguf(header, list);
    OutputFile file;
    file.name = name;
    file.start = std::move(layout.start);
    file.bytes = layout.bytes;
    file.tensors = tensors.size();
    for (std::size_t i = 0; i < tensors.size(); ++i) {
      file.jobs.push_back({tensors[i]->recipe, {layout.offsets[i]}});
    }
    return file;
  }

  const Source& source_;
  const WeightsSettings& settings_;
  cli::Run& run_;
  StorageType storage_;
  GgufMla mla_;
  std::vector<Made> made_;
  std::string first_problems_;
  std::size_t problems_ = 0;
  std::set<std::string_view> used_;
  std::size_t mtp_tensors_ = 0;
  std::size_t fallbacks_ = 0;
};

}  // namespace

OutputPlan plan_gguf_export(const Source& source, const WeightsSettings& settings, cli::Run& run) {
  return Exporter(source, settings, run).plan();
}

}  // namespace ds::convert
