#include "tools/convert/adapter_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>

#include "libcore/base/error.h"

namespace ds::convert {

namespace {

class PartsRecipe final : public Recipe {
 public:
  PartsRecipe(const SafetensorsFile& file, std::string name, std::int64_t rows, std::int64_t cols,
              DType dtype, std::vector<FactorPart> parts)
      : file_(file),
        name_(std::move(name)),
        rows_(rows),
        cols_(cols),
        dtype_(dtype),
        parts_(std::move(parts)) {
    // Neighbours in the result share pieces.
    std::sort(parts_.begin(), parts_.end(),
              [](const FactorPart& a, const FactorPart& b) { return a.row < b.row; });
    const auto fitting =
        static_cast<std::int64_t>(kPieceBytes / sizeof(float)) / std::max<std::int64_t>(1, cols);
    per_piece_ = std::max<std::int64_t>(1, fitting);
  }
  std::size_t pieces() const override {
    return static_cast<std::size_t>((rows_ + per_piece_ - 1) / per_piece_);
  }
  std::uint64_t input_bytes() const override {
    std::uint64_t bytes = 0;
    for (const FactorPart& part : parts_) {
      bytes += static_cast<std::uint64_t>(part.rows * part.cols *
                                          kernels::dtype_size(part.source.tensor->dtype));
    }
    return bytes;
  }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::int64_t begin = static_cast<std::int64_t>(piece) * per_piece_;
    const std::int64_t count = std::min(per_piece_, rows_ - begin);
    const auto elements = static_cast<std::size_t>(count * cols_);
    auto* values = reinterpret_cast<float*>(bench.buffer(0, elements * sizeof(float)));
    std::fill_n(values, elements, 0.0f);
    for (const FactorPart& part : parts_) {
      if (part.row >= begin + count) break;
      const std::int64_t first = std::max(part.row, begin);
      const std::int64_t last = std::min(part.row + part.rows, begin + count);
      const AdapterSource& source = part.source;
      const std::byte* data = file_.data(*source.tensor);
      for (std::int64_t row = first; row < last; ++row) {
        const std::int64_t from = source.first + (row - part.row) * source.row_step;
        float* to = values + (row - begin) * cols_ + part.col;
        for (std::int64_t j = 0; j < part.cols; ++j) {
          to[j * part.col_step] =
              part.factor * adapter_value(data, source.tensor->dtype, from + j * source.col_step);
        }
      }
    }
    release(begin, count);
    const auto size = static_cast<std::size_t>(kernels::dtype_size(dtype_));
    const void* out = values;
    if (dtype_ != DType::kF32) {
      const View narrow(bench.buffer(1, elements * size), dtype_, {count, cols_});
      bench.caster().cast(ConstView(values, DType::kF32, {count, cols_}), {}, narrow);
      non_finite_ += bench.caster().count_non_finite(narrow);
      out = narrow.data();
    }
    sink.write(0, static_cast<std::uint64_t>(begin * cols_) * size, out, elements * size);
  }
  void close(Tally& /*tally*/) const override {
    if (non_finite_ == 0) return;
    throw Error(ExitCode::kBadInput,
                fmt::format("tensor {}: {} values are beyond the largest of {}", name_,
                            non_finite_.load(), dtype_name(dtype_)),
                "store the adapter in F32 first");
  }

 private:
  // Pages that the piece read need not stay, but those of a fused tensor, which the next ones read
  // as well.
  void release(std::int64_t begin, std::int64_t count) const {
    for (const FactorPart& part : parts_) {
      const TensorInfo& tensor = *part.source.tensor;
      if (part.row < begin + count && part.row + part.rows > begin &&
          tensor.bytes() <= kPieceBytes) {
        file_.file().dont_need(tensor.begin, tensor.bytes());
      }
    }
  }

  const SafetensorsFile& file_;
  std::string name_;
  std::int64_t rows_, cols_;
  DType dtype_;
  std::vector<FactorPart> parts_;
  std::int64_t per_piece_ = 1;
  mutable std::atomic<std::uint64_t> non_finite_{0};
};

}  // namespace

std::shared_ptr<const Recipe> parts_recipe(const SafetensorsFile& file, std::string name,
                                           std::int64_t rows, std::int64_t cols, DType dtype,
                                           std::vector<FactorPart> parts) {
  return std::make_shared<PartsRecipe>(file, std::move(name), rows, cols, dtype, std::move(parts));
}

}  // namespace ds::convert
