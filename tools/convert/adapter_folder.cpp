#include "tools/convert/adapter_folder.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <set>

#include "libcore/base/error.h"
#include "tools/convert/low_rank.h"
#include "tools/convert/matrix.h"

namespace ds::convert {

namespace {

constexpr std::size_t kLeftSlot = kMatrixSlots + 4;
constexpr std::size_t kRightSlot = kMatrixSlots + 5;

AdapterSource transposed(AdapterSource source) {
  std::swap(source.row_step, source.col_step);
  return source;
}

}  // namespace

LowRankUpdate::LowRankUpdate(const SafetensorsFile& file, const LoraTarget& target,
                             const AdapterSource& a, const AdapterSource& b,
                             const AdapterSource& magnitude)
    : file_(file), target_(target), magnitude_(magnitude) {
  if (target.module.kind == ModuleKind::kEmbedding) {
    // A is [vocab, r] and B [hidden, r]; the weight is [vocab, hidden].
    left_ = a;
    right_ = transposed(b);
    rows_ = target.module.in;
    cols_ = target.module.out;
  } else {
    left_ = b;
    right_ = a;
    rows_ = target.module.out;
    cols_ = target.module.in;
  }
}

float LowRankUpdate::value(const AdapterSource& source, std::int64_t row, std::int64_t col) const {
  return adapter_value(file_.data(*source.tensor), source.tensor->dtype,
                       source.first + row * source.row_step + col * source.col_step);
}

bool LowRankUpdate::is_zero() const {
  if (has_magnitude()) return false;
  const auto all_zero = [this](const AdapterSource& source, std::int64_t rows, std::int64_t cols) {
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        if (value(source, i, j) != 0.0f) return false;
      }
    }
    return true;
  };
  return all_zero(left_, rows_, rank()) || all_zero(right_, rank(), cols_);
}

void LowRankUpdate::apply(std::int64_t begin, std::int64_t count, const float* base, float* out,
                          Workbench& bench) const {
  const std::int64_t rank = target_.rank;
  auto* left = reinterpret_cast<float*>(
      bench.buffer(kLeftSlot, static_cast<std::size_t>(count * rank) * sizeof(float)));
  for (std::int64_t i = 0; i < count; ++i) {
    for (std::int64_t k = 0; k < rank; ++k) left[i * rank + k] = value(left_, begin + i, k);
  }
  auto* right = reinterpret_cast<float*>(
      bench.buffer(kRightSlot, static_cast<std::size_t>(rank * cols_) * sizeof(float)));
  const DType dtype = right_.tensor->dtype;
  const auto size = static_cast<std::uint64_t>(kernels::dtype_size(dtype));
  const std::byte* stored =
      file_.data(*right_.tensor) + static_cast<std::uint64_t>(right_.first) * size;
  if (right_.col_step == 1 && right_.row_step == cols_ &&
      reinterpret_cast<std::uintptr_t>(stored) % size == 0) {
    bench.caster().cast(ConstView(stored, dtype, {rank, cols_}), {},
                        View(right, DType::kF32, {rank, cols_}));
  } else {
    for (std::int64_t k = 0; k < rank; ++k) {
      for (std::int64_t j = 0; j < cols_; ++j) right[k * cols_ + j] = value(right_, k, j);
    }
  }
  add_low_rank(base, count, cols_, left, right, rank, static_cast<float>(target_.scaling), out);
  if (!has_magnitude()) return;
  for (std::int64_t i = 0; i < count; ++i) {
    float* row = out + i * cols_;
    double squares = 0.0;
    for (std::int64_t j = 0; j < cols_; ++j) squares += static_cast<double>(row[j]) * row[j];
    const auto norm = static_cast<float>(std::sqrt(squares));
    const float magnitude = value(magnitude_, 0, begin + i);
    if (!(norm > 0.0f)) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: row {} of {} is zero, so DoRA's magnitude {} cannot be applied",
                              file_.path().string(), begin + i, weight_name(), magnitude),
                  "use the base model that this adapter was trained on");
    }
    const float gain = magnitude / norm;
    for (std::int64_t j = 0; j < cols_; ++j) row[j] *= gain;
  }
}

AdapterSource LowRankUpdate::factor_a() const {
  return target_.module.kind == ModuleKind::kEmbedding ? transposed(left_) : right_;
}

AdapterSource LowRankUpdate::factor_b() const {
  return target_.module.kind == ModuleKind::kEmbedding ? transposed(right_) : left_;
}

void LowRankUpdate::release() const {
  for (const AdapterSource* source : {&left_, &right_, &magnitude_}) {
    if (source->tensor == nullptr) continue;
    file_.file().dont_need(source->tensor->begin, source->tensor->bytes());
  }
}

LowRankUpdate LowRankUpdate::ranks(std::int64_t first, std::int64_t rank) const {
  LowRankUpdate part = *this;
  part.left_.first += first * left_.col_step;
  part.right_.first += first * right_.row_step;
  part.target_.alpha *= static_cast<double>(rank) / static_cast<double>(target_.rank);
  part.target_.rank = rank;
  return part;
}

std::unique_ptr<AdapterFolder> open_adapter_folder(const std::filesystem::path& folder,
                                                   const std::vector<ModuleInfo>& modules) {
  auto adapter = std::make_unique<AdapterFolder>();
  adapter->folder = folder;
  adapter->lora = load_lora_config(folder, WholeModules::kAllow);
  adapter->file = open_adapter_file(folder);
  adapter->targets = match_targets(adapter->lora, modules, Unmatched::kAllow);
  const bool dora = adapter->lora.use_dora;
  for (const LoraTarget& target : adapter->targets) {
    if (!dora || target.module.kind != ModuleKind::kEmbedding) continue;
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: use_dora with the target {} is not supported (its norms run over "
                            "the whole vocabulary)",
                            (folder / kAdapterConfigFile).string(), target.module.path),
                "merge this adapter with the tool that made it, or train it without the embedding");
  }
  const std::vector<AdapterSlot> slots = adapter_slots(adapter->targets, dora);
  const std::vector<AdapterSource> sources =
      match_adapter(adapter->file, adapter->lora, slots, &adapter->whole);
  expect_finite(adapter->file, sources);
  std::size_t at = 0;
  for (const LoraTarget& target : adapter->targets) {
    const AdapterSource& a = sources[at++];
    const AdapterSource& b = sources[at++];
    adapter->updates.emplace_back(adapter->file, target, a, b,
                                  dora ? sources[at++] : AdapterSource{});
  }
  return adapter;
}

}  // namespace ds::convert
