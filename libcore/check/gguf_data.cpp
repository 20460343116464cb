// The data of a GGUF file.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "libcore/base/format.h"
#include "libcore/check/alike.h"
#include "libcore/check/gguf_target.h"
#include "libcore/check/stretches.h"

namespace ds::check {
namespace {

constexpr std::size_t kQ80Block = 34;  // an F16 scale and 32 codes

// The dtype whose values are looked at; nothing for types without a rule.
std::optional<DType> dtype_of(const GgufTensor& tensor) {
  if (tensor.is(GgmlType::kF32)) return DType::kF32;
  if (tensor.is(GgmlType::kF16)) return DType::kF16;
  if (tensor.is(GgmlType::kBF16)) return DType::kBF16;
  return std::nullopt;
}

// Of whole blocks; elements are blocks.
TensorStats scan_q80(std::span<const std::byte> bytes) {
  TensorStats stats;
  stats.elements = bytes.size() / kQ80Block;
  for (std::uint64_t i = 0; i < stats.elements; ++i) {
    const std::byte* block = bytes.data() + i * kQ80Block;
    kernels::f16 scale;
    std::memcpy(&scale, block, sizeof scale);
    if (!std::isfinite(static_cast<float>(scale))) {
      if (stats.bad++ == 0) stats.first_bad = i;
    }
    stats.zero = stats.zero && std::all_of(block, block + kQ80Block,
                                           [](std::byte byte) { return byte == std::byte{0}; });
  }
  stats.uniform = false;
  return stats;
}

}  // namespace

std::vector<TensorStats> read_gguf(const GgufTarget& target, const DeepOptions& options) {
  const auto& entries = target.entries();
  std::vector<std::size_t> order(entries.size());
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = i;
  // In the order of the bytes on disk.
  std::sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
    const auto &x = entries[a], &y = entries[b];
    return x.file != y.file ? x.file->path() < y.file->path() : x.tensor->begin < y.tensor->begin;
  });
  std::vector<Stretch> stretches;
  std::vector<std::size_t> owner;
  for (const std::size_t i : order) {
    const GgufTensor& tensor = *entries[i].tensor;
    const bool q80 = tensor.is(GgmlType::kQ80);
    if (!q80 && !dtype_of(tensor)) continue;
    const std::size_t unit = q80 ? kQ80Block : 8;
    const std::size_t piece = kStretchBytes / unit * unit;
    for (std::uint64_t at = tensor.begin; at < tensor.end; at += piece) {
      stretches.push_back({&entries[i].file->file(), at, std::min(tensor.end, at + piece), unit});
      owner.push_back(i);
    }
  }
  std::vector<TensorStats> parts(stretches.size());
  read_stretches(stretches, options, [&](std::size_t i, std::span<const std::byte> bytes) {
    const auto dtype = dtype_of(*entries[owner[i]].tensor);
    append(parts[i], dtype ? scan(*dtype, bytes) : scan_q80(bytes));
  });
  std::vector<TensorStats> stats(entries.size());
  for (std::size_t i = 0; i < stretches.size(); ++i) append(stats[owner[i]], parts[i]);
  return stats;
}

void check_gguf_values(const GgufTarget& target, const DeepOptions& options, Findings& findings) {
  const std::vector<TensorStats> stats = read_gguf(target, options);
  Alike alike;
  for (std::size_t i = 0; i < stats.size(); ++i) {
    if (stats[i].bad == 0) continue;
    const auto& entry = target.entries()[i];
    const auto* file = entry.file;
    const auto* tensor = entry.tensor;
    const char* what = tensor->is(GgmlType::kQ80) ? "blocks with a scale" : "values";
    alike.add("gguf-not-finite", "", "", "", [&] {
      const std::string name = file->path().string();
      return Finding{
          .file = name,
          .tensor = tensor->name,
          .message = fmt::format("{}: tensor {} has {} {} that {} not finite, the first at {}",
                                 name, quote_text(tensor->name),
                                 format_count(static_cast<std::int64_t>(stats[i].bad)), what,
                                 tensor->is(GgmlType::kQ80) ? "is" : "are", stats[i].first_bad)};
    });
  }
  alike.flush(findings);
}

}  // namespace ds::check
