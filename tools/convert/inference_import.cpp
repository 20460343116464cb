// From the shards of DeepSeek's inference demo back to Hugging Face layout.
#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cstring>
#include <map>

#include "libcore/base/error.h"
#include "libcore/config/inference_names.h"
#include "libcore/io/safetensors_header.h"
#include "tools/convert/config_json.h"
#include "tools/convert/encode.h"
#include "tools/convert/hf_plan.h"
#include "tools/convert/inference_plan.h"

namespace ds::convert {

namespace {

namespace fs = std::filesystem;
using Split = InferenceSplit;
using Parts = std::vector<Checkpoint::Entry>;  // one of each shard that has the tensor, by rank

// Parts joined along a dimension: along rows one after the other, along columns side by side.
class JoinRecipe final : public Recipe {
 public:
  JoinRecipe(Parts parts, bool by_rows) : parts_(std::move(parts)), by_rows_(by_rows) {
    for (const Checkpoint::Entry& part : parts_) {
      recipes_.push_back(copy_recipe(part));
      input_ += part.tensor->bytes();
    }
    if (by_rows_) {
      for (const auto& recipe : recipes_) {
        starts_.push_back(pieces_);
        pieces_ += recipe->pieces();
      }
      return;
    }
    const TensorInfo& first = *parts_[0].tensor;
    row_bytes_ =
        first.shape[0] == 0 ? 0 : first.bytes() / static_cast<std::uint64_t>(first.shape[0]);
    const std::uint64_t whole = row_bytes_ * parts_.size();
    rows_per_piece_ = std::max<std::uint64_t>(1, whole == 0 ? 1 : kPieceBytes / whole);
    const auto rows = static_cast<std::uint64_t>(first.shape[0]);
    pieces_ = static_cast<std::size_t>((rows + rows_per_piece_ - 1) / rows_per_piece_);
  }
  std::size_t pieces() const override { return pieces_; }
  std::uint64_t input_bytes() const override { return input_; }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    if (by_rows_) {
      const auto next = std::upper_bound(starts_.begin(), starts_.end(), piece);
      const auto part = static_cast<std::size_t>(next - starts_.begin()) - 1;
      std::uint64_t before = 0;
      for (std::size_t i = 0; i < part; ++i) before += parts_[i].tensor->bytes();
      Shifted shifted(sink, before);
      recipes_[part]->make(piece - starts_[part], bench, shifted);
      return;
    }
    const std::uint64_t begin = piece * rows_per_piece_;
    const auto rows = static_cast<std::uint64_t>(parts_[0].tensor->shape[0]);
    const std::uint64_t count = std::min(rows_per_piece_, rows - begin);
    const std::uint64_t whole = row_bytes_ * parts_.size();
    std::byte* out = bench.buffer(0, count * whole);
    for (std::size_t p = 0; p < parts_.size(); ++p) {
      const TensorInfo& tensor = *parts_[p].tensor;
      const std::byte* from = parts_[p].file->data(tensor) + begin * row_bytes_;
      for (std::uint64_t row = 0; row < count; ++row) {
        std::memcpy(out + row * whole + p * row_bytes_, from + row * row_bytes_, row_bytes_);
      }
      parts_[p].file->file().dont_need(tensor.begin + begin * row_bytes_, count * row_bytes_);
    }
    sink.write(0, begin * whole, out, count * whole);
  }

 private:
  struct Shifted final : PieceSink {
    Shifted(PieceSink& to, std::uint64_t by) : sink(to), shift(by) {}
    void write(std::size_t tensor, std::uint64_t offset, const void* data,
               std::size_t bytes) override {
      sink.write(tensor, shift + offset, data, bytes);
    }
    PieceSink& sink;
    std::uint64_t shift;
  };

  Parts parts_;
  bool by_rows_;
  std::vector<std::shared_ptr<const Recipe>> recipes_;
  std::vector<std::size_t> starts_;
  std::size_t pieces_ = 0;
  std::uint64_t input_ = 0;
  std::uint64_t row_bytes_ = 0, rows_per_piece_ = 1;
};

// The copy of rank 0, which the others must equal.
class SameRecipe final : public Recipe {
 public:
  explicit SameRecipe(Parts parts) : parts_(std::move(parts)), copy_(copy_recipe(parts_[0])) {}
  std::size_t pieces() const override { return copy_->pieces(); }
  std::uint64_t input_bytes() const override { return parts_[0].tensor->bytes() * parts_.size(); }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const TensorInfo& first = *parts_[0].tensor;
    const std::uint64_t begin = piece * kPieceBytes;
    const std::uint64_t size = std::min(kPieceBytes, first.bytes() - begin);
    const std::byte* data = parts_[0].file->data(first) + begin;
    for (std::size_t p = 1; p < parts_.size(); ++p) {
      const Checkpoint::Entry& other = parts_[p];
      if (std::memcmp(data, other.file->data(*other.tensor) + begin, size) != 0) {
        throw Error(
            ExitCode::kBadInput,
            fmt::format("tensor {} differs between {} and {}, every shard must hold the same",
                        first.name, parts_[0].file->path().string(), other.file->path().string()),
            "these shards are not of one model");
      }
      other.file->file().dont_need(other.tensor->begin + begin, size);
    }
    copy_->make(piece, bench, sink);
  }

 private:
  Parts parts_;
  std::shared_ptr<const Recipe> copy_;
};

class Importer {
 public:
  Importer(const InferenceSource& source) : source_(source) {}  // NOLINT

  std::vector<Unit> units() {
    std::map<std::string, Parts> tensors;
    for (const auto& shard : source_.shards) {
      for (const TensorInfo& tensor : shard->tensors()) {
        tensors[std::string(tensor.name)].push_back({shard.get(), &tensor});
      }
    }
    std::map<std::string, Unit> by_hf_name;
    for (auto& [name, parts] : tensors) {
      const auto hf = to_hf_name(name);
      if (!hf) {
        throw Error(ExitCode::kBadInput,
                    fmt::format("{}: tensor {} is none of the inference layout",
                                parts[0].file->path().string(), name));
      }
      by_hf_name.emplace(hf->name, unit(*hf, std::move(parts)));
    }
    std::vector<Unit> units;
    for (auto& [name, unit] : by_hf_name) units.push_back(std::move(unit));
    return units;
  }

 private:
  Unit unit(const InferenceName& hf, Parts parts) {
    const TensorInfo& first = *parts[0].tensor;
    const std::size_t wanted = hf.split == Split::kExpert ? 1 : source_.shards.size();
    if (parts.size() != wanted) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("{}: tensor {} is in {} of {} shards, needed in {}", source_.folder.string(),
                      first.name, parts.size(), source_.shards.size(), wanted == 1 ? "one" : "all"),
          "shards are missing or of different models");
    }
    Unit unit{{{hf.name, first.dtype, first.shape.copy()}}, nullptr};
    const std::size_t dim = hf.split == Split::kCols ? 1 : 0;
    for (const Checkpoint::Entry& part : parts) {
      if (part.tensor->dtype == first.dtype && part.tensor->shape == first.shape) continue;
      throw Error(
          ExitCode::kBadInput,
          fmt::format("{}: tensor {} is {} {}, in {} it is {} {}", part.file->path().string(),
                      first.name, dtype_name(part.tensor->dtype), shape_text(part.tensor->shape),
                      parts[0].file->path().filename().string(), dtype_name(first.dtype),
                      shape_text(first.shape)),
          "the shards are of different models");
    }
    if (parts.size() == 1) {
      unit.recipe = copy_recipe(parts[0]);
    } else if (hf.split == Split::kReplicated) {
      unit.recipe = std::make_shared<SameRecipe>(std::move(parts));
    } else if (first.shape.size() <= dim) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: tensor {} of shape {} has no dimension {} to be joined along",
                              source_.folder.string(), first.name, shape_text(first.shape), dim));
    } else {
      unit.tensors[0].shape[dim] *= static_cast<std::int64_t>(parts.size());
      unit.recipe = std::make_shared<JoinRecipe>(std::move(parts), dim == 0);
    }
    return unit;
  }

  const InferenceSource& source_;
};

}  // namespace

InferenceSource open_inference(const fs::path& folder) {
  InferenceSource source;
  source.folder = folder;
  std::int64_t count = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto shard = parse_inference_shard(entry.path().filename().string());
    if (!shard) continue;
    const std::int64_t mp = shard->ranks;
    if (count != 0 && mp != count) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: holds shards of {} and of {} ranks, one set is needed",
                              folder.string(), std::min(mp, count), std::max(mp, count)));
    }
    count = mp;
  }
  for (std::int64_t rank = 0; rank < count; ++rank) {
    const fs::path path = folder / inference_shard_name(rank, count);
    if (!fs::exists(path)) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: shard {} is missing, {} are needed", folder.string(),
                              path.filename().string(), count),
                  "copy it from where the others came from");
    }
    source.shards.push_back(std::make_unique<SafetensorsFile>(SafetensorsFile::open(path)));
  }
  return source;
}

OutputPlan plan_from_inference(const InferenceSource& source, const WeightsSettings& settings,
                               cli::Run& /*run*/) {
  if (!fs::exists(source.folder / "config.json")) {
    throw Error(ExitCode::kBadInput, source.folder.string() + ": config.json is missing",
                "copy it from the Hugging Face folder of this model");
  }
  load_model_config(source.folder);  // refuses what we do not know
  const std::uint64_t limit = shard_limit(settings.max_shard_size);
  OutputPlan plan;
  nlohmann::ordered_json config = read_config(source.folder);
  if (config.contains("num_nextn_predict_layers")) config["num_nextn_predict_layers"] = 0;
  CheckpointPlan files = plan_checkpoint(Importer(source).units(), limit);
  add_texts(plan, config, source.folder, files);
  plan.files = std::move(files.files);
  std::vector<const SafetensorsFile*> shards;
  for (const auto& shard : source.shards) shards.push_back(shard.get());
  plan.identity = "hf\n" + identity_of(shards);
  return plan;
}

}  // namespace ds::convert
