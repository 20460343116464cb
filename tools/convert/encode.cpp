#include "tools/convert/encode.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "libcore/base/error.h"

namespace ds::convert {

namespace {

constexpr std::int64_t kBlock = 128;

// Rows cut into pieces of about `piece_bytes`; pieces begin at multiples of `step` rows.
class RowPieces {
 public:
  RowPieces(std::int64_t rows, std::uint64_t row_bytes, std::int64_t step,
            std::uint64_t piece_bytes)
      : rows_(rows) {
    const auto fitting =
        static_cast<std::int64_t>(piece_bytes / std::max<std::uint64_t>(1, row_bytes));
    per_piece_ = std::max(step, fitting / step * step);
    count_ = static_cast<std::size_t>((rows + per_piece_ - 1) / per_piece_);
  }
  std::size_t count() const { return count_; }
  std::int64_t begin(std::size_t piece) const {
    return static_cast<std::int64_t>(piece) * per_piece_;
  }
  std::int64_t size(std::size_t piece) const { return std::min(per_piece_, rows_ - begin(piece)); }

 private:
  std::int64_t rows_;
  std::int64_t per_piece_ = 1;
  std::size_t count_ = 0;
};

class CopyRecipe final : public Recipe {
 public:
  explicit CopyRecipe(const Checkpoint::Entry& entry) : entry_(entry) {}
  std::size_t pieces() const override {
    return static_cast<std::size_t>((input_bytes() + kPieceBytes - 1) / kPieceBytes);
  }
  std::uint64_t input_bytes() const override { return entry_.tensor->bytes(); }
  void prefetch(std::size_t piece) const override {
    entry_.file->file().will_need(entry_.tensor->begin + piece * kPieceBytes, size(piece));
  }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::uint64_t offset = piece * kPieceBytes, bytes = size(piece);
    sink.write(0, offset, bench.read(entry_.file->file(), entry_.tensor->begin + offset, bytes, 0),
               bytes);
  }

 private:
  std::uint64_t size(std::size_t piece) const {
    return std::min(kPieceBytes, input_bytes() - piece * kPieceBytes);
  }
  Checkpoint::Entry entry_;
};

class CopyPartRecipe final : public Recipe {
 public:
  CopyPartRecipe(const Checkpoint::Entry& entry, std::int64_t row, std::int64_t rows,
                 std::int64_t col, std::int64_t cols)
      : entry_(entry),
        size_(static_cast<std::uint64_t>(kernels::dtype_size(entry.tensor->dtype))),
        width_(entry.tensor->shape.empty() ? 1 : entry.tensor->shape.back()),
        row_(row),
        col_(col),
        cols_(cols),
        rows_(rows, bytes_of(width_), 1, kPieceBytes),
        input_(bytes_of(rows * cols)) {}
  std::size_t pieces() const override { return rows_.count(); }
  std::uint64_t input_bytes() const override { return input_; }
  void prefetch(std::size_t piece) const override {
    entry_.file->file().will_need(source(piece), bytes_of(rows_.size(piece) * width_));
  }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::int64_t count = rows_.size(piece);
    const std::uint64_t bytes = bytes_of(count * cols_);
    const std::uint64_t to = bytes_of(rows_.begin(piece) * cols_);
    const std::byte* from =
        bench.read(entry_.file->file(), source(piece), bytes_of(count * width_), 1);
    if (cols_ == width_) {
      sink.write(0, to, from, bytes);
      return;
    }
    from += bytes_of(col_);
    std::byte* out = bench.buffer(0, bytes);
    for (std::int64_t i = 0; i < count; ++i) {
      std::memcpy(out + bytes_of(i * cols_), from + bytes_of(i * width_), bytes_of(cols_));
    }
    sink.write(0, to, out, bytes);
  }

 private:
  std::uint64_t bytes_of(std::int64_t elements) const {
    return static_cast<std::uint64_t>(elements) * size_;
  }
  std::uint64_t source(std::size_t piece) const {
    return entry_.tensor->begin + bytes_of((row_ + rows_.begin(piece)) * width_);
  }
  Checkpoint::Entry entry_;
  std::uint64_t size_;
  std::int64_t width_, row_, col_, cols_;
  RowPieces rows_;
  std::uint64_t input_;
};

// Values of the input that the result cannot hold, or that are no numbers.
class Oddities {
 public:
  void add(std::uint64_t non_finite, std::uint64_t overflowed, std::int64_t row, std::int64_t col) {
    const std::lock_guard lock(mutex_);
    if (non_finite > 0 && (non_finite_ == 0 || row < row_)) {
      row_ = row;
      col_ = col;
    }
    non_finite_ += non_finite;
    overflowed_ += overflowed;
  }
  std::uint64_t non_finite() const { return non_finite_; }
  std::uint64_t overflowed() const { return overflowed_; }
  std::string place() const { return fmt::format("[{}, {}]", row_, col_); }

 private:
  std::mutex mutex_;
  std::uint64_t non_finite_ = 0;
  std::uint64_t overflowed_ = 0;
  std::int64_t row_ = 0, col_ = 0;  // of the first that is not finite
};

class CastRecipe final : public Recipe {
 public:
  CastRecipe(MatrixPtr matrix, DType dtype, bool allow_overflow)
      : matrix_(std::move(matrix)),
        dtype_(dtype),
        allow_overflow_(allow_overflow),
        row_bytes_(static_cast<std::uint64_t>(matrix_->cols() * kernels::dtype_size(dtype))),
        rows_(matrix_->rows(), row_bytes_, 1, kPieceBytes) {}
  std::size_t pieces() const override { return rows_.count(); }
  std::uint64_t input_bytes() const override { return matrix_->input_bytes(); }
  void prefetch(std::size_t piece) const override {
    matrix_->prefetch(rows_.begin(piece), rows_.size(piece));
  }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::int64_t begin = rows_.begin(piece), count = rows_.size(piece);
    const std::uint64_t bytes = static_cast<std::uint64_t>(count) * row_bytes_;
    const View out(bench.buffer(0, bytes), dtype_, {count, matrix_->cols()});
    matrix_->read_as(begin, count, out, bench);
    if (bench.caster().count_non_finite(out) > 0) look_at(begin, count, out, bench);
    sink.write(0, static_cast<std::uint64_t>(begin) * row_bytes_, out.data(), bytes);
  }
  void close(Tally& tally) const override {
    if (oddities_.overflowed() > 0 && !allow_overflow_) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("tensor {}: {} values are beyond 65504, the largest of f16",
                              matrix_->name(), oddities_.overflowed()),
                  "use --to bf16, or --allow_overflow to store 65504 instead");
    }
    tally.overflowed += oddities_.overflowed();
    tally.non_finite += oddities_.non_finite();
    if (oddities_.overflowed() > 0) {
      tally.notes.push_back(fmt::format("tensor {}: {} values beyond 65504 were stored as 65504",
                                        matrix_->name(), oddities_.overflowed()));
    }
    if (oddities_.non_finite() > 0) {
      tally.notes.push_back(fmt::format("tensor {}: {} values are NaN or infinite, the first at {}",
                                        matrix_->name(), oddities_.non_finite(),
                                        oddities_.place()));
    }
  }

 private:
  // The rare piece with infinity or NaN in its result: which of them the input had.
  void look_at(std::int64_t begin, std::int64_t count, const View& out, Workbench& bench) const {
    const std::int64_t cols = matrix_->cols();
    auto* wide = reinterpret_cast<float*>(
        bench.buffer(1, static_cast<std::size_t>(count * cols) * sizeof(float)));
    matrix_->read(begin, count, wide, bench);
    std::uint64_t non_finite = 0, overflowed = 0;
    std::int64_t first = -1;
    for (std::int64_t i = 0; i < count * cols; ++i) {
      if (!std::isfinite(wide[i])) {
        if (non_finite++ == 0) first = i;
      } else if (dtype_ == DType::kF16) {
        kernels::f16& value = out.as<kernels::f16>()[i];
        if ((value.bits & 0x7fffU) != 0x7c00U) continue;
        ++overflowed;
        --value.bits;  // the largest finite number of this sign
      }
    }
    oddities_.add(non_finite, overflowed, begin + std::max<std::int64_t>(first, 0) / cols,
                  std::max<std::int64_t>(first, 0) % cols);
  }

  MatrixPtr matrix_;
  DType dtype_;
  bool allow_overflow_;
  std::uint64_t row_bytes_;
  RowPieces rows_;
  mutable Oddities oddities_;
};

// Powers of two as UE8M0, in place.
void narrow_scales(float* scales, std::uint64_t count) {
  auto* codes = reinterpret_cast<kernels::ue8m0*>(scales);
  for (std::uint64_t i = 0; i < count; ++i) {
    float scale = 0.0f;
    std::memcpy(&scale, scales + i, sizeof scale);
    codes[i] = kernels::ue8m0(scale);
  }
}

class QuantiseRecipe final : public Recipe {
 public:
  QuantiseRecipe(MatrixPtr matrix, Caster::Scale kind, DType scale_dtype,
                 const Checkpoint::Entry& given)
      : matrix_(std::move(matrix)),
        kind_(kind),
        scale_dtype_(scale_dtype),
        given_(given),
        across_((matrix_->cols() + kBlock - 1) / kBlock),
        rows_(matrix_->rows(), static_cast<std::uint64_t>(matrix_->cols()), kBlock, kPieceBytes) {}
  std::size_t pieces() const override { return rows_.count(); }
  std::uint64_t input_bytes() const override { return matrix_->input_bytes(); }
  void prefetch(std::size_t piece) const override {
    matrix_->prefetch(rows_.begin(piece), rows_.size(piece));
  }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::int64_t begin = rows_.begin(piece), count = rows_.size(piece);
    const std::int64_t cols = matrix_->cols(), high = (count + kBlock - 1) / kBlock;
    const auto elements = static_cast<std::uint64_t>(count * cols);
    const auto scales = static_cast<std::uint64_t>(high * across_);
    const ConstView values = matrix_->values(begin, count, bench);
    const View codes(bench.buffer(1, elements), DType::kF8E4M3, {count, cols});
    const View scale(bench.buffer(2, scales * sizeof(float)), DType::kF32, {high, across_});
    if (given_.tensor != nullptr) {
      const ConstView stored = read_scale(given_, begin / kBlock, high, bench);
      std::memcpy(scale.data(), stored.data(), scales * sizeof(float));
    }
    const double error = bench.caster().quantise(values, kind_, codes, scale);
    if (std::isnan(error)) refuse(begin, count, bench);
    note(error);
    sink.write(0, static_cast<std::uint64_t>(begin * cols), codes.data(), elements);
    const auto size = static_cast<std::uint64_t>(kernels::dtype_size(scale_dtype_));
    const auto at = static_cast<std::uint64_t>(begin / kBlock * across_) * size;
    const void* stored = scale.data();
    if (given_.tensor != nullptr) {
      stored = bench.read(given_.file->file(), given_.tensor->begin + at, scales * size, 3);
    } else if (scale_dtype_ == DType::kF8E8M0) {
      narrow_scales(scale.as<float>(), scales);
    }
    sink.write(1, at, stored, scales * size);
  }
  void close(Tally& tally) const override {
    tally.max_abs_error = std::max(tally.max_abs_error, worst_);
  }

 private:
  [[noreturn]] void refuse(std::int64_t begin, std::int64_t count, Workbench& bench) const {
    const std::int64_t cols = matrix_->cols(), size = count * cols;
    auto* wide =
        reinterpret_cast<float*>(bench.buffer(0, static_cast<std::size_t>(size) * sizeof(float)));
    matrix_->read(begin, count, wide, bench);
    std::int64_t i = 0;
    while (i + 1 < size && std::isfinite(wide[i])) ++i;
    throw Error(ExitCode::kBadInput,
                fmt::format("tensor {} at [{}, {}] is {}, FP8 blocks need finite numbers",
                            matrix_->name(), begin + i / cols, i % cols, wide[i]),
                "restore this tensor from where the checkpoint came from");
  }
  void note(double error) const {
    const std::lock_guard lock(mutex_);
    worst_ = std::max(worst_, error);
  }

  MatrixPtr matrix_;
  Caster::Scale kind_;
  DType scale_dtype_;
  Checkpoint::Entry given_;  // null unless the scales are
  std::int64_t across_;
  RowPieces rows_;
  mutable std::mutex mutex_;
  mutable double worst_ = 0.0;
};

class ScaleRecipe final : public Recipe {
 public:
  ScaleRecipe(const Checkpoint::Entry& scale, DType dtype) : scale_(scale), dtype_(dtype) {}
  std::size_t pieces() const override { return 1; }
  std::uint64_t input_bytes() const override { return scale_.tensor->bytes(); }
  void make(std::size_t /*piece*/, Workbench& bench, PieceSink& sink) const override {
    const ConstView values = read_scale(scale_, 0, scale_.tensor->shape[0], bench);
    const auto count = static_cast<std::uint64_t>(values.size());
    auto* out = reinterpret_cast<float*>(bench.buffer(0, count * sizeof(float)));
    std::memcpy(out, values.data(), count * sizeof(float));
    if (dtype_ == DType::kF8E8M0) narrow_scales(out, count);
    sink.write(0, 0, out, count * static_cast<std::uint64_t>(kernels::dtype_size(dtype_)));
  }

 private:
  Checkpoint::Entry scale_;
  DType dtype_;
};

}  // namespace

std::shared_ptr<const Recipe> scale_recipe(const Checkpoint::Entry& scale, DType dtype) {
  return std::make_shared<ScaleRecipe>(scale, dtype);
}

std::shared_ptr<const Recipe> copy_recipe(const Checkpoint::Entry& tensor) {
  return std::make_shared<CopyRecipe>(tensor);
}

std::shared_ptr<const Recipe> copy_recipe(const Checkpoint::Entry& tensor, std::int64_t row,
                                          std::int64_t rows, std::int64_t col, std::int64_t cols) {
  return std::make_shared<CopyPartRecipe>(tensor, row, rows, col, cols);
}

std::shared_ptr<const Recipe> cast_recipe(MatrixPtr matrix, DType dtype, bool allow_overflow) {
  return std::make_shared<CastRecipe>(std::move(matrix), dtype, allow_overflow);
}

std::shared_ptr<const Recipe> quantise_recipe(MatrixPtr matrix, ScaleFormat format,
                                              DType scale_dtype) {
  const bool power = format == ScaleFormat::kUe8m0;
  return std::make_shared<QuantiseRecipe>(std::move(matrix),
                                          power ? Caster::Scale::kPowerOfTwo : Caster::Scale::kF32,
                                          scale_dtype, Checkpoint::Entry{});
}

std::shared_ptr<const Recipe> quantise_recipe(MatrixPtr matrix, const Checkpoint::Entry& scale) {
  return std::make_shared<QuantiseRecipe>(std::move(matrix), Caster::Scale::kGiven,
                                          scale.tensor->dtype, scale);
}

}  // namespace ds::convert
