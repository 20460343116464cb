#include "tools/check/list.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/check/detect.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/io/safetensors_header.h"
#include "tools/check/rules.h"

namespace ds::check {
namespace {

namespace fs = std::filesystem;

class Listing {
 public:
  explicit Listing(bool json) : as_json_(json) {}

  void add(const SafetensorsFile& file, const TensorInfo& tensor) {
    std::uint64_t elements = 1;
    for (const std::int64_t extent : tensor.shape) elements *= static_cast<std::uint64_t>(extent);
    // Scales belong to their weight, they are no parameters.
    if (!tensor.name.ends_with("_scale_inv")) parameters_ += elements;
    bytes_ += tensor.bytes();
    ++count_;
    const std::string name = file.path().filename().string();
    if (as_json_) {
      tensors_.push_back({{"name", tensor.name},
                          {"dtype", kernels::dtype_name(tensor.dtype)},
                          {"shape", tensor.shape},
                          {"file", name},
                          {"bytes", tensor.bytes()}});
    } else {
      text_ +=
          fmt::format("{:<8} {:<16} {:>10}  {}  {}\n", kernels::dtype_name(tensor.dtype),
                      shape_text(tensor.shape), format_bytes(tensor.bytes()), tensor.name, name);
    }
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
  } else {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: a {} has no tensors", settings.path, target_name(target.kind)),
                "give a checkpoint, a safetensors file or an adapter");
  }
  listing.finish(run);
}

}  // namespace ds::check
