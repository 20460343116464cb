#include "tools/convert/matrix.h"

#include <fmt/format.h>

#include <cmath>
#include <cstring>

#include "libcore/base/error.h"
#include "libcore/io/safetensors_header.h"
#include "libcore/tensor/widen.h"

namespace ds::convert {

namespace {

constexpr std::int64_t kBlock = 128;

std::int64_t blocks(std::int64_t n) { return (n + kBlock - 1) / kBlock; }

// Some exports store the exponents of UE8M0 as plain bytes.
DType scale_dtype(DType stored) { return stored == DType::kU8 ? DType::kF8E8M0 : stored; }

float scale_value(const std::byte* data, DType dtype) {
  if (dtype == DType::kF32) {
    float value = 0.0f;
    std::memcpy(&value, data, sizeof value);
    return value;
  }
  if (dtype == DType::kBF16) {
    kernels::bf16 value;
    std::memcpy(&value, data, sizeof value);
    return static_cast<float>(value);
  }
  kernels::ue8m0 value;
  std::memcpy(&value, data, sizeof value);
  return static_cast<float>(value);
}

bool is_float(DType dtype) {
  return dtype == DType::kF32 || dtype == DType::kF64 || dtype == DType::kBF16 ||
         dtype == DType::kF16 || dtype == DType::kF8E4M3;
}

class StoredMatrix final : public Matrix {
 public:
  StoredMatrix(const Checkpoint::Entry& entry, const Checkpoint::Entry& scale) : entry_(entry) {
    const TensorInfo& info = *entry.tensor;
    if (!is_float(info.dtype)) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: tensor {} is {}, needed is F32, F64, BF16, F16 or F8_E4M3",
                              entry.file->path().string(), info.name, dtype_name(info.dtype)));
    }
    size_ = static_cast<std::uint64_t>(kernels::dtype_size(info.dtype));
    if (!info.shape.empty()) cols_ = info.shape.back();
    const std::uint64_t row_bytes = static_cast<std::uint64_t>(cols_) * size_;
    rows_ = row_bytes == 0 ? 0 : static_cast<std::int64_t>(info.bytes() / row_bytes);
    if (info.dtype != DType::kF8E4M3) return;
    const std::string problem = scale_problem(info, scale.tensor);
    if (!problem.empty()) {
      throw Error(ExitCode::kBadInput, entry_.file->path().string() + ": " + problem,
                  "the codes mean nothing without their scales");
    }
    scale_ = scale;
  }

  std::string_view name() const override { return entry_.tensor->name; }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  std::uint64_t input_bytes() const override {
    return entry_.tensor->bytes() + (scale_.tensor == nullptr ? 0 : scale_.tensor->bytes());
  }

  void read(std::int64_t begin, std::int64_t count, float* out, Workbench& bench) const override {
    read_as(begin, count, View(out, DType::kF32, {count, cols_}), bench);
  }
  void read_as(std::int64_t begin, std::int64_t count, const View& out,
               Workbench& bench) const override {
    if (count == 0 || cols_ == 0) return;
    const ConstView stored = stored_rows(begin, count, bench);
    if (scale_.tensor == nullptr) {
      bench.caster().cast(stored, {}, out);
      return;
    }
    const std::int64_t first = begin / kBlock;
    const ConstView scale = read_scale(scale_, first, blocks(begin + count) - first, bench);
    // The op counts blocks from its first row: a call begins where a block does, or ends in it.
    for (std::int64_t done = 0; done < count;) {
      const std::int64_t row = begin + done;
      const std::int64_t n =
          row % kBlock == 0 ? count - done : std::min(count - done, kBlock - row % kBlock);
      bench.caster().cast(stored.slice_rows(done, n),
                          scale.slice_rows(row / kBlock - first, blocks(n)),
                          out.slice_rows(done, n));
      done += n;
    }
  }
  ConstView values(std::int64_t begin, std::int64_t count, Workbench& bench) const override {
    const DType dtype = entry_.tensor->dtype;
    if (dtype != DType::kF32 && dtype != DType::kBF16) return Matrix::values(begin, count, bench);
    return stored_rows(begin, count, bench);
  }
  void prefetch(std::int64_t begin, std::int64_t count) const override {
    const auto [offset, bytes] = span(begin, count);
    entry_.file->file().will_need(entry_.tensor->begin + offset, bytes);
  }

 private:
  ConstView stored_rows(std::int64_t begin, std::int64_t count, Workbench& bench) const {
    const auto [offset, bytes] = span(begin, count);
    const std::byte* data =
        bench.read(entry_.file->file(), entry_.tensor->begin + offset, bytes, kMatrixSlots);
    return ConstView(data, entry_.tensor->dtype, {count, cols_});
  }
  std::pair<std::uint64_t, std::uint64_t> span(std::int64_t begin, std::int64_t count) const {
    const std::uint64_t row_bytes = static_cast<std::uint64_t>(cols_) * size_;
    return {static_cast<std::uint64_t>(begin) * row_bytes,
            static_cast<std::uint64_t>(count) * row_bytes};
  }

  Checkpoint::Entry entry_;
  std::uint64_t size_ = 0;  // bytes of an element
  std::int64_t rows_ = 0, cols_ = 1;
  Checkpoint::Entry scale_;  // null when there is none
};

class SubMatrix final : public Matrix {
 public:
  SubMatrix(MatrixPtr whole, std::int64_t row, std::int64_t rows, std::int64_t col,
            std::int64_t cols)
      : whole_(std::move(whole)), row_(row), rows_(rows), col_(col), cols_(cols) {}
  std::string_view name() const override { return whole_->name(); }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  std::uint64_t input_bytes() const override {
    const auto share =
        static_cast<double>(rows_ * cols_) /
        static_cast<double>(std::max<std::int64_t>(1, whole_->rows() * whole_->cols()));
    return static_cast<std::uint64_t>(static_cast<double>(whole_->input_bytes()) * share);
  }
  void read(std::int64_t begin, std::int64_t count, float* out, Workbench& bench) const override {
    if (cols_ == whole_->cols()) {
      whole_->read(row_ + begin, count, out, bench);
      return;
    }
    const std::int64_t width = whole_->cols();
    auto* wide = reinterpret_cast<float*>(
        bench.buffer(kMatrixSlots + 2, static_cast<std::size_t>(count * width) * sizeof(float)));
    whole_->read(row_ + begin, count, wide, bench);
    for (std::int64_t i = 0; i < count; ++i) {
      std::memcpy(out + i * cols_, wide + i * width + col_,
                  static_cast<std::size_t>(cols_) * sizeof(float));
    }
  }
  void prefetch(std::int64_t begin, std::int64_t count) const override {
    whole_->prefetch(row_ + begin, count);
  }

 private:
  MatrixPtr whole_;
  std::int64_t row_, rows_, col_, cols_;
};

}  // namespace

ConstView Matrix::values(std::int64_t begin, std::int64_t count, Workbench& bench) const {
  auto* wide = reinterpret_cast<float*>(
      bench.buffer(kMatrixSlots + 6, static_cast<std::size_t>(count * cols()) * sizeof(float)));
  read(begin, count, wide, bench);
  return ConstView(wide, DType::kF32, {count, cols()});
}

void Matrix::read_as(std::int64_t begin, std::int64_t count, const View& out,
                     Workbench& bench) const {
  if (out.dtype() == DType::kF32) {
    read(begin, count, out.as<float>(), bench);
    return;
  }
  auto* wide = reinterpret_cast<float*>(
      bench.buffer(kMatrixSlots + 3, static_cast<std::size_t>(count * cols()) * sizeof(float)));
  read(begin, count, wide, bench);
  bench.caster().cast(ConstView(wide, DType::kF32, {count, cols()}), {}, out);
}

ConstView read_scale(const Checkpoint::Entry& scale, std::int64_t row, std::int64_t rows,
                     Workbench& bench) {
  const TensorInfo& info = *scale.tensor;
  const std::int64_t cols = info.shape[1];
  const DType dtype = scale_dtype(info.dtype);
  const auto size = static_cast<std::uint64_t>(kernels::dtype_size(dtype));
  const auto count = static_cast<std::uint64_t>(rows * cols);
  auto* values = reinterpret_cast<float*>(bench.buffer(kMatrixSlots + 1, count * sizeof(float)));
  const std::byte* data =
      bench.read(scale.file->file(), info.begin + static_cast<std::uint64_t>(row * cols) * size,
                 count * size, kMatrixSlots + 7);
  for (std::uint64_t i = 0; i < count; ++i) {
    values[i] = scale_value(data + i * size, dtype);
    if (!std::isfinite(values[i])) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("{}: scale {} at [{}, {}] is {}, a finite number is needed",
                              scale.file->path().string(), info.name,
                              row + static_cast<std::int64_t>(i) / cols,
                              static_cast<std::int64_t>(i) % cols, values[i]),
                  "restore this shard: the block it multiplies is lost");
    }
  }
  return ConstView(values, DType::kF32, {rows, cols});
}

std::string scale_problem(const TensorInfo& weight, const TensorInfo* scale) {
  if (scale == nullptr) {
    return fmt::format("tensor {} is F8_E4M3 and has no {}_scale_inv", weight.name, weight.name);
  }
  if (weight.shape.size() != 2) {
    return fmt::format("tensor {} is F8_E4M3 of shape {}, two dimensions are needed", weight.name,
                       shape_text(weight.shape));
  }
  const std::vector<std::int64_t> needed{blocks(weight.shape[0]), blocks(weight.shape[1])};
  if (scale->shape != needed) {
    return fmt::format("scale {} is {}, needed is {} for {} {}", scale->name,
                       shape_text(scale->shape), shape_text(needed), weight.name,
                       shape_text(weight.shape));
  }
  if (scale->dtype != DType::kF32 && scale->dtype != DType::kBF16 &&
      scale->dtype != DType::kF8E8M0 && scale->dtype != DType::kU8) {
    return fmt::format("scale {} is {}, needed is F32, BF16, F8_E8M0 or U8", scale->name,
                       dtype_name(scale->dtype));
  }
  return "";
}

MatrixPtr stored_matrix(const Checkpoint::Entry& tensor, const Checkpoint::Entry& scale) {
  return std::make_shared<StoredMatrix>(tensor, scale);
}

MatrixPtr sub_matrix(MatrixPtr whole, std::int64_t row, std::int64_t rows, std::int64_t col,
                     std::int64_t cols) {
  return std::make_shared<SubMatrix>(std::move(whole), row, rows, col, cols);
}

}  // namespace ds::convert
