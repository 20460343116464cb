#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <map>
#include <set>

#include "libcore/base/error.h"
#include "libcore/config/gguf_file.h"
#include "libcore/io/safetensors_header.h"
#include "tools/convert/config_json.h"
#include "tools/convert/encode.h"
#include "tools/convert/gguf_plan.h"
#include "tools/convert/gguf_recipe.h"
#include "tools/convert/gguf_tokenizer.h"

namespace ds::convert {

namespace {

namespace fs = std::filesystem;
using Kind = GgufTensorPlan::Kind;

constexpr std::size_t kMostProblems = 20;

bool survives(float value, DType dtype) {
  const float back = dtype == DType::kBF16 ? static_cast<float>(kernels::bf16(value))
                                           : static_cast<float>(kernels::f16(value));
  return std::bit_cast<std::uint32_t>(back) == std::bit_cast<std::uint32_t>(value);
}

class Importer {
 public:
  Importer(const GgufModel& model, const WeightsSettings& settings, cli::Run& run)
      : model_(model), settings_(settings), run_(run), where_(model.first().path().string()) {}

  OutputPlan plan() {
    read_config();
    choose_dtype();
    for (const GgufTensorPlan& tensor : gguf_tensor_plan(config_, facts_.mla)) add(tensor);
    look_for_unused();
    if (problems_ > 0) refuse();
    OutputPlan plan;
    plan.identity = fmt::format("hf {}\n{}", settings_.max_shard_size, identity());
    const std::uint64_t limit = shard_limit(settings_.max_shard_size);
    CheckpointPlan files = plan_checkpoint(units_, limit);
    plan.files = std::move(files.files);
    std::vector<std::string> notes;
    plan.texts = tokenizer_files(model_.first(), notes);
    plan.texts["config.json"] = config_text(json_);
    if (!files.index.empty()) plan.texts["model.safetensors.index.json"] = files.index;
    for (const std::string& note : notes) run_.warn(note);
    return plan;
  }

 private:
  void read_config() {
    const GgufFileSettings settings(model_.first());
    // The architecture is told before any of its tensors is looked for.
    const auto architecture = settings.find("general.architecture");
    if (architecture == std::optional<GgufSetting>(GgufSetting(std::string("deepseek2")))) {
      facts_ = gguf_facts(model_.entries(), where_);
    }
    std::vector<std::string> guesses;
    json_ = config_from_gguf(settings, facts_, where_, guesses);
    config_ = parse_model_config(nlohmann::json(json_), where_);
    for (const std::string& guess : guesses) run_.info("config.json: " + guess);
    if (facts_.mla == GgufMla::kUnsplit)
      run_.info(where_ + ": attn_kv_b is not split (legacy MLA)");
  }

  // The dtype of the projections: the one that most bytes are in.
  void choose_dtype() {
    std::map<std::uint32_t, std::uint64_t> bytes;
    for (const GgufModel::Entry& entry : model_.entries()) {
      if (entry.tensor->shape.size() > 1) bytes[entry.tensor->type] += entry.tensor->bytes();
    }
    const auto most =
        std::max_element(bytes.begin(), bytes.end(),
                         [](const auto& a, const auto& b) { return a.second < b.second; });
    const auto type = most == bytes.end() ? 0U : most->first;
    dtype_ = type == static_cast<std::uint32_t>(GgmlType::kF32)   ? DType::kF32
             : type == static_cast<std::uint32_t>(GgmlType::kF16) ? DType::kF16
                                                                  : DType::kBF16;
    json_["torch_dtype"] = dtype_ == DType::kF32   ? "float32"
                           : dtype_ == DType::kF16 ? "float16"
                                                   : "bfloat16";
    if (type == static_cast<std::uint32_t>(GgmlType::kQ80)) {
      run_.info(where_ + ": Q8_0 tensors become BF16");
    }
  }

  GgufModel::Entry find(const GgufTensorPlan& tensor) {
    const GgufModel::Entry entry = model_.find(tensor.name);
    if (entry.tensor == nullptr) {
      problem("tensor " + tensor.name + " is missing");
      return {};
    }
    used_.insert(entry.tensor->name);
    if (entry.tensor->shape != tensor.shape) {
      problem(fmt::format("tensor {} is {}, the keys make it {} (slowest first)", tensor.name,
                          shape_text(entry.tensor->shape), shape_text(tensor.shape)));
      return {};
    }
    return entry;
  }

  // What a tensor becomes. F32 in a narrower file is what llama.cpp wants for norms and router;
  // where the values are those of the narrow dtype it was the original's.
  DType target(const GgufModel::Entry& entry) const {
    const GgufTensor& tensor = *entry.tensor;
    if (dtype_ == DType::kF32 || !tensor.is(GgmlType::kF32)) return dtype_;
    if (tensor.name.ends_with(".exp_probs_b.bias")) return DType::kF32;
    const std::byte* data = entry.file->data(tensor);
    const std::uint64_t values = tensor.bytes() / sizeof(float);
    for (std::uint64_t i = 0; i < values; ++i) {
      float value = 0.0F;
      std::memcpy(&value, data + i * sizeof value, sizeof value);
      if (!survives(value, dtype_)) return DType::kF32;
    }
    return dtype_;
  }
  static bool stored_as(const GgufTensor& tensor, DType dtype) {
    return tensor.is(dtype == DType::kF32    ? GgmlType::kF32
                     : dtype == DType::kBF16 ? GgmlType::kBF16
                                             : GgmlType::kF16);
  }

  // Rows [row, row + rows) of the tensor seen as a matrix.
  static RecipePart part(const GgufModel::Entry& entry, std::int64_t row, std::int64_t rows,
                         DType dtype) {
    const std::int64_t cols = entry.tensor->shape.back();
    const auto row_bytes = static_cast<std::uint64_t>(cols * kernels::dtype_size(dtype));
    const std::uint64_t bytes = static_cast<std::uint64_t>(rows) * row_bytes;
    if (stored_as(*entry.tensor, dtype)) {
      return {gguf_copy_recipe(entry, static_cast<std::uint64_t>(row) * row_bytes, bytes), bytes};
    }
    return {cast_recipe(sub_matrix(gguf_matrix(entry), row, rows, 0, cols), dtype, false), bytes};
  }

  void push(const std::string& name, DType dtype, const std::vector<std::int64_t>& shape,
            std::shared_ptr<const Recipe> recipe) {
    units_.push_back({{{name, dtype, shape}}, std::move(recipe)});
  }

  void add(const GgufTensorPlan& tensor) {
    const GgufModel::Entry entry = find(tensor);
    if (entry.tensor == nullptr) return;
    if (tensor.kind == Kind::kKeyB) {
      key_b_ = entry;
      return;
    }
    if (tensor.kind == Kind::kValueB) {
      if (key_b_.tensor != nullptr) join_heads(tensor, entry);
      key_b_ = {};
      return;
    }
    const DType dtype = target(entry);
    const std::int64_t rows = tensor.source_shape.size() == 1 ? 1 : tensor.source_shape.front();
    for (std::int64_t i = 0; i < tensor.sources; ++i) {
      push(tensor.source_name(i), dtype, tensor.source_shape,
           part(entry, i * rows, rows, dtype).recipe);
    }
  }

  // kv_b_proj: of every head the transposed keys, then the values.
  void join_heads(const GgufTensorPlan& tensor, const GgufModel::Entry& value_b) {
    const std::int64_t rank = config_.kv_lora_rank, nope = config_.qk_nope_head_dim;
    const std::int64_t values = config_.v_head_dim;
    const DType dtype = target(key_b_) == target(value_b) ? target(key_b_) : DType::kF32;
    const MatrixPtr keys = gguf_matrix(key_b_);
    std::vector<RecipePart> parts;
    for (std::int64_t h = 0; h < config_.num_attention_heads; ++h) {
      parts.push_back(
          {cast_recipe(transposed_matrix(sub_matrix(keys, h * rank, rank, 0, nope)), dtype, false),
           static_cast<std::uint64_t>(rank * nope * kernels::dtype_size(dtype))});
      parts.push_back(part(value_b, h * values, values, dtype));
    }
    push(tensor.source, dtype, tensor.source_shape, concat_recipe(std::move(parts)));
  }

  void look_for_unused() {
    for (const GgufModel::Entry& entry : model_.entries()) {
      const std::string& name = entry.tensor->name;
      if (used_.contains(name) || is_gguf_extra(name, facts_.mla)) continue;
      problem("tensor " + name + " is none of the model's that the keys describe");
    }
  }

  void problem(const std::string& text) {
    if (++problems_ > kMostProblems) return;
    first_problems_ += (problems_ == 1 ? "" : "; ") + text;
  }

  [[noreturn]] void refuse() const {
    std::string text = first_problems_;
    if (problems_ > kMostProblems) text += fmt::format("; and {} more", problems_ - kMostProblems);
    throw Error(ExitCode::kBadInput, where_ + ": " + text, "nothing was written");
  }

  std::string identity() const {
    std::string text;
    for (const auto& file : model_.files()) {
      struct stat status {};
      if (::stat(file->path().c_str(), &status) != 0) status = {};
      text += fmt::format("{} {} {}.{}\n", file->path().filename().string(), status.st_size,
                          status.st_mtim.tv_sec, status.st_mtim.tv_nsec);
    }
    return text;
  }

  const GgufModel& model_;
  const WeightsSettings& settings_;
  cli::Run& run_;
  std::string where_;
  GgufFacts facts_;
  nlohmann::ordered_json json_;
  ModelConfig config_;
  DType dtype_ = DType::kBF16;
  GgufModel::Entry key_b_;  // waits for its values
  std::vector<Unit> units_;
  std::string first_problems_;
  std::size_t problems_ = 0;
  std::set<std::string_view> used_;
};

}  // namespace

bool is_gguf(const fs::path& path) {
  std::error_code ignored;
  if (fs::is_regular_file(path, ignored)) return path.extension() == ".gguf";
  if (!fs::is_directory(path, ignored) || fs::exists(path / "config.json", ignored)) return false;
  return std::any_of(fs::directory_iterator(path, ignored), fs::directory_iterator(),
                     [](const auto& entry) { return entry.path().extension() == ".gguf"; });
}

OutputPlan plan_gguf_import(const GgufModel& model, const WeightsSettings& settings,
                            cli::Run& run) {
  return Importer(model, settings, run).plan();
}

}  // namespace ds::convert
