#include "libcore/model/weight_store.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <functional>

#include "libcore/base/error.h"
#include "libcore/io/safetensors_header.h"
#include "libcore/tensor/widen.h"

namespace ds {

namespace {

bool is_floating(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF16 ||
         dtype == DType::kF8E4M3 || dtype == DType::kF64;
}

std::string where(const Checkpoint::Entry& entry) {
  return fmt::format("{}: tensor '{}'", entry.file->path().string(), entry.tensor->name);
}

}  // namespace

WeightStore::WeightStore(Checkpoint checkpoint, DType compute)
    : checkpoint_(std::move(checkpoint)), compute_(compute) {}

bool WeightStore::has(std::string_view name) const {
  return checkpoint_.find(name).tensor != nullptr;
}

bool WeightStore::maps(const void* data) const {
  const auto* at = static_cast<const std::byte*>(data);
  for (const auto& file : checkpoint_.files()) {
    const MappedFile& mapped = file->file();
    if (!std::less<>()(at, mapped.data()) && std::less<>()(at, mapped.data() + mapped.size())) {
      return true;
    }
  }
  return false;
}

const Checkpoint::Entry WeightStore::require(const std::string& name,
                                             const std::vector<std::int64_t>& shape) const {
  const Checkpoint::Entry entry = checkpoint_.find(name);
  if (entry.tensor == nullptr) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: tensor '{}' of shape {} is missing", checkpoint_.folder().string(),
                            name, shape_text(shape)),
                "the checkpoint is incomplete or its config.json belongs to another model; run "
                "deepseek-check on the folder");
  }
  if (entry.tensor->shape != shape) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{} has shape {}, config.json needs {}", where(entry),
                            shape_text(entry.tensor->shape), shape_text(shape)),
                "config.json and the weights do not belong together");
  }
  if (!is_floating(entry.tensor->dtype)) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{} has dtype {}, needed is F32, BF16, F16 or F8_E4M3", where(entry),
                            kernels::dtype_name(entry.tensor->dtype)),
                "convert the checkpoint to one of these dtypes first");
  }
  return entry;
}

ConstView WeightStore::view_of(const Checkpoint::Entry& entry) {
  if (entry.file->aligned(*entry.tensor)) return entry.file->view(*entry.tensor);
  auto copy = std::make_unique<Tensor>(entry.tensor->dtype, entry.tensor->shape.copy());
  std::memcpy(copy->data(), entry.file->data(*entry.tensor),
              static_cast<std::size_t>(copy->bytes()));
  owned_.push_back(std::move(copy));
  return std::as_const(*owned_.back()).view();
}

ConstView WeightStore::scale_of(const std::string& name, const Checkpoint::Entry& weight) {
  const std::string scale_name = name + "_scale_inv";
  const Checkpoint::Entry scale = checkpoint_.find(scale_name);
  if (scale.tensor == nullptr) {
    throw Error(
        ExitCode::kBadInput,
        fmt::format("{} is F8_E4M3 but its scale '{}' is missing", where(weight), scale_name),
        "without the scale the weight's values are unknown; download the shard again");
  }
  const std::vector<std::int64_t> wanted{(weight.tensor->shape[0] + 127) / 128,
                                         (weight.tensor->shape[1] + 127) / 128};
  if (scale.tensor->shape != wanted) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{} has shape {}, 128x128 blocks of a {} weight need {}", where(scale),
                            shape_text(scale.tensor->shape), shape_text(weight.tensor->shape),
                            shape_text(wanted)),
                "the scales belong to another block size or another weight");
  }
  const DType dtype = scale.tensor->dtype;
  if (dtype == DType::kU8) {  // E8M0 codes stored as plain bytes (MXFP8 exports)
    const ConstView bytes = view_of(scale);
    return ConstView(bytes.data(), DType::kF8E8M0, scale.tensor->shape.data(), 2);
  }
  if (dtype != DType::kF32 && dtype != DType::kBF16 && dtype != DType::kF8E8M0) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{} has dtype {}, a scale is F32, BF16 or F8_E8M0", where(scale),
                            kernels::dtype_name(dtype)),
                "convert the scales to F32");
  }
  return view_of(scale);
}

WeightRef WeightStore::matrix(const std::string& name, std::int64_t rows, std::int64_t cols) {
  const Checkpoint::Entry entry = require(name, {rows, cols});
  WeightRef ref;
  ref.data = view_of(entry);
  if (entry.tensor->dtype == DType::kF8E4M3) ref.scale = scale_of(name, entry);
  if (compute_ == DType::kF64) {
    owned_.push_back(std::make_unique<Tensor>(widen(ref.data, ref.scale, DType::kF64)));
    ref.data = std::as_const(*owned_.back()).view();
    ref.scale = {};
  }
  return ref;
}

Tensor WeightStore::widened(const std::string& name, const std::vector<std::int64_t>& shape) {
  const Checkpoint::Entry entry = require(name, shape);
  const ConstView scale =
      entry.tensor->dtype == DType::kF8E4M3 ? scale_of(name, entry) : ConstView();
  return widen(view_of(entry), scale, kernels::statistics_dtype(compute_));
}

ConstView WeightStore::vector(const std::string& name, std::int64_t size) {
  owned_.push_back(std::make_unique<Tensor>(widened(name, {size})));
  return std::as_const(*owned_.back()).view();
}

std::string WeightStore::find_non_finite() const {
  for (const std::string_view name : checkpoint_.names()) {
    const Checkpoint::Entry entry = checkpoint_.find(name);
    const TensorInfo& tensor = *entry.tensor;
    if (!is_floating(tensor.dtype) || tensor.shape.empty()) continue;
    const std::int64_t cols = tensor.shape.back();
    const std::int64_t bytes = kernels::dtype_size(tensor.dtype);
    const auto count = static_cast<std::int64_t>(tensor.end - tensor.begin) / bytes;
    const std::byte* data = entry.file->data(tensor);
    constexpr std::int64_t kChunk = std::int64_t{1} << 16;
    for (std::int64_t begin = 0; begin < count; begin += kChunk) {
      const std::int64_t n = std::min(kChunk, count - begin);
      Tensor copy(tensor.dtype, {n});  // aligned, whatever the file's alignment
      std::memcpy(copy.data(), data + begin * bytes, static_cast<std::size_t>(n * bytes));
      const Tensor values = widen(std::as_const(copy).view(), {}, DType::kF32);
      for (std::int64_t i = 0; i < n; ++i) {
        if (std::isfinite(values.as<float>()[i])) continue;
        return fmt::format("{} is not finite at [{}, {}]", where(entry), (begin + i) / cols,
                           (begin + i) % cols);
      }
    }
  }
  return "";
}

std::int64_t WeightStore::resident_bytes() const {
  std::int64_t bytes = 0;
  for (const auto& tensor : owned_) bytes += tensor->bytes();
  return bytes;
}

}  // namespace ds
