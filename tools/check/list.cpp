#include "tools/check/list.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <set>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/check/detect.h"
#include "libcore/config/inference_names.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/io/gguf.h"
#include "libcore/io/safetensors_header.h"
#include "tools/check/rules.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

class Listing {
 public:
  explicit Listing(bool json) : as_json_(json) {}

  struct Row {
    std::string name;
    std::string dtype;
    std::vector<std::int64_t> shape;
    std::string file;
    std::uint64_t bytes = 0;
    bool counts = true;  // its elements are parameters
  };
  void add(const Row& row) {
    std::uint64_t elements = 1;
    for (const std::int64_t extent : row.shape) elements *= static_cast<std::uint64_t>(extent);
    if (row.counts) parameters_ += elements;
    bytes_ += row.bytes;
    ++count_;
    if (as_json_) {
      tensors_.push_back({{"name", row.name},
                          {"dtype", row.dtype},
                          {"shape", row.shape},
                          {"file", row.file},
                          {"bytes", row.bytes}});
    } else {
      text_ += fmt::format("{:<8} {:<16} {:>10}  {}  {}\n", row.dtype, shape_text(row.shape),
                           format_bytes(row.bytes), row.name, row.file);
    }
  }
  // Scales belong to their weight, they are no parameters.
  void add(const SafetensorsFile& file, const TensorInfo& tensor, bool counts = true) {
    add({.name = std::string(tensor.name),
         .dtype = std::string(kernels::dtype_name(tensor.dtype)),
         .shape = tensor.shape.copy(),
         .file = file.path().filename().string(),
         .bytes = tensor.bytes(),
         .counts = counts && !tensor.name.ends_with("_scale_inv")});
  }

  void finish(cli::Run& run) {
    text_ += fmt::format("{} tensors, {} parameters, {} bytes ({})\n",
                         format_count(static_cast<std::int64_t>(count_)),
                         format_count(static_cast<std::int64_t>(parameters_)),
                         format_count(static_cast<std::int64_t>(bytes_)), format_bytes(bytes_));
    run.product(
        text_, {{"tensors", std::move(tensors_)},
                {"totals", {{"tensors", count_}, {"parameters", parameters_}, {"bytes", bytes_}}}});
  }

 private:
  bool as_json_;
  std::string text_;
  nlohmann::json tensors_ = nlohmann::json::array();
  std::uint64_t count_ = 0;
  std::uint64_t parameters_ = 0;
  std::uint64_t bytes_ = 0;
};

void list_file(const fs::path& path, Listing& listing) {
  const SafetensorsFile file = SafetensorsFile::open(path);
  for (const std::uint32_t at : file.name_order()) listing.add(file, file.tensors()[at]);
}

void list_gguf(const fs::path& path, Listing& listing) {
  const GgufModel model = GgufModel::open(path);
  for (const GgufModel::Entry& entry : model.entries()) {
    listing.add({.name = entry.tensor->name,
                 .dtype = entry.tensor->type_name(),
                 .shape = entry.tensor->shape,
                 .file = entry.file->path().filename().string(),
                 .bytes = entry.tensor->bytes()});
  }
}

// Every shard's own tensors; what is whole in each of them counts once.
void list_inference(const fs::path& folder, Listing& listing) {
  std::vector<std::pair<std::int64_t, fs::path>> shards;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const auto shard = parse_inference_shard(entry.path().filename().string());
    if (shard) shards.emplace_back(shard->rank, entry.path());
  }
  std::sort(shards.begin(), shards.end());
  std::set<std::string> whole;
  for (const auto& [rank, path] : shards) {
    const SafetensorsFile file = SafetensorsFile::open(path);
    for (const std::uint32_t at : file.name_order()) {
      const TensorInfo& tensor = file.tensors()[at];
      const auto name = to_hf_name(tensor.name);
      const bool scale = tensor.name.ends_with(".scale");
      const bool again =
          name && name->split == InferenceSplit::kReplicated && !whole.emplace(tensor.name).second;
      listing.add(file, tensor, !scale && !again);
    }
  }
}

}  // namespace

void run_list(const ListSettings& settings, cli::Run& run) {
  need_plain_format(run);
  const Detected target = detect(settings.path);
  Listing listing(run.json_output());
  if (target.kind == TargetKind::kShard) {
    list_file(target.path, listing);
  } else if (target.kind == TargetKind::kAdapter) {
    list_file(target.path / "adapter_model.safetensors", listing);
  } else if (target.kind == TargetKind::kCheckpoint) {
    const Checkpoint checkpoint = Checkpoint::open(target.path);
    for (const Checkpoint::Entry& entry : checkpoint.entries()) {
      listing.add(*entry.file, *entry.tensor);
    }
    for (const CheckpointFinding& warning : checkpoint.warnings()) run.warn(warning.message);
  } else if (target.kind == TargetKind::kGguf || target.kind == TargetKind::kGgufAdapter) {
    list_gguf(target.path, listing);
  } else if (target.kind == TargetKind::kInference) {
    list_inference(target.path, listing);
  } else {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: a {} has no tensors", settings.path, target_name(target.kind)),
                "give a checkpoint, a safetensors or GGUF file, inference shards or an adapter");
  }
  listing.finish(run);
}

}  // namespace ds::check
