#include "tools/convert/gguf_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <mutex>

#include "libcore/base/error.h"
#include "libcore/tensor/q8_0.h"

namespace ds::convert {

namespace {

constexpr std::size_t kBlockSlot = kMatrixSlots + 4;
constexpr std::size_t kStoredSlot = kMatrixSlots + 5;

class ShiftedSink final : public PieceSink {
 public:
  ShiftedSink(PieceSink& sink, std::uint64_t shift) : sink_(sink), shift_(shift) {}
  void write(std::size_t tensor, std::uint64_t offset, const void* data,
             std::size_t bytes) override {
    sink_.write(tensor, shift_ + offset, data, bytes);
  }

 private:
  PieceSink& sink_;
  std::uint64_t shift_;
};

class ConcatRecipe final : public Recipe {
 public:
  explicit ConcatRecipe(std::vector<RecipePart> parts) : parts_(std::move(parts)) {
    std::uint64_t offset = 0;
    for (const RecipePart& part : parts_) {
      first_.push_back(pieces_);
      offsets_.push_back(offset);
      pieces_ += part.recipe->pieces();
      offset += part.bytes;
    }
  }
  std::size_t pieces() const override { return pieces_; }
  std::uint64_t input_bytes() const override {
    std::uint64_t bytes = 0;
    for (const RecipePart& part : parts_) bytes += part.recipe->input_bytes();
    return bytes;
  }
  void prefetch(std::size_t piece) const override {
    const std::size_t part = part_of(piece);
    parts_[part].recipe->prefetch(piece - first_[part]);
  }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::size_t part = part_of(piece);
    ShiftedSink shifted(sink, offsets_[part]);
    parts_[part].recipe->make(piece - first_[part], bench, shifted);
  }
  void close(Tally& tally) const override {
    for (const RecipePart& part : parts_) part.recipe->close(tally);
  }

 private:
  // The last part that begins at or before `piece` (parts without pieces own none).
  std::size_t part_of(std::size_t piece) const {
    const auto after = std::upper_bound(first_.begin(), first_.end(), piece);
    return static_cast<std::size_t>(after - first_.begin()) - 1;
  }
  std::vector<RecipePart> parts_;
  std::vector<std::size_t> first_;
  std::vector<std::uint64_t> offsets_;
  std::size_t pieces_ = 0;
};

class TransposedMatrix final : public Matrix {
 public:
  explicit TransposedMatrix(MatrixPtr block) : block_(std::move(block)) {}
  std::string_view name() const override { return block_->name(); }
  std::int64_t rows() const override { return block_->cols(); }
  std::int64_t cols() const override { return block_->rows(); }
  std::uint64_t input_bytes() const override { return block_->input_bytes(); }
  void read(std::int64_t begin, std::int64_t count, float* out, Workbench& bench) const override {
    const std::int64_t height = block_->rows(), width = block_->cols();
    auto* values = reinterpret_cast<float*>(
        bench.buffer(kBlockSlot, static_cast<std::size_t>(height * width) * sizeof(float)));
    block_->read(0, height, values, bench);
    for (std::int64_t i = 0; i < count; ++i) {
      for (std::int64_t j = 0; j < height; ++j) out[i * height + j] = values[j * width + begin + i];
    }
  }
  void prefetch(std::int64_t /*begin*/, std::int64_t /*count*/) const override {
    block_->prefetch(0, block_->rows());
  }

 private:
  MatrixPtr block_;
};

class Q8Recipe final : public Recipe {
 public:
  explicit Q8Recipe(MatrixPtr matrix)
      : matrix_(std::move(matrix)),
        per_piece_(std::max<std::int64_t>(
            1, static_cast<std::int64_t>(kPieceBytes / sizeof(float)) / matrix_->cols())) {}
  std::size_t pieces() const override {
    return static_cast<std::size_t>((matrix_->rows() + per_piece_ - 1) / per_piece_);
  }
  std::uint64_t input_bytes() const override { return matrix_->input_bytes(); }
  void prefetch(std::size_t piece) const override { matrix_->prefetch(begin(piece), size(piece)); }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::int64_t count = size(piece), values = count * matrix_->cols();
    const std::int64_t row_bytes = matrix_->cols() / kQ8Values * kQ8Bytes;
    const auto bytes = static_cast<std::size_t>(count * row_bytes);
    auto* wide =
        reinterpret_cast<float*>(bench.buffer(0, static_cast<std::size_t>(values) * sizeof(float)));
    std::byte* blocks = bench.buffer(1, bytes);
    matrix_->read(begin(piece), count, wide, bench);
    const double error = encode_q8_0(wide, values, blocks);
    if (!std::isfinite(error)) refuse(begin(piece), values, wide);
    sink.write(0, static_cast<std::uint64_t>(begin(piece) * row_bytes), blocks, bytes);
    const std::lock_guard lock(mutex_);
    worst_ = std::max(worst_, error);
  }
  void close(Tally& tally) const override {
    tally.max_abs_error = std::max(tally.max_abs_error, worst_);
  }

 private:
  std::int64_t begin(std::size_t piece) const {
    return static_cast<std::int64_t>(piece) * per_piece_;
  }
  std::int64_t size(std::size_t piece) const {
    return std::min(per_piece_, matrix_->rows() - begin(piece));
  }
  [[noreturn]] void refuse(std::int64_t row, std::int64_t values, const float* wide) const {
    constexpr float kLargest = 65504.0F * 127.0F;
    std::int64_t i = 0;
    while (i + 1 < values && std::fabs(wide[i]) <= kLargest) ++i;
    throw Error(ExitCode::kBadInput,
                fmt::format("tensor {} at [{}, {}] is {}, Q8_0 blocks need finite numbers up to {}",
                            matrix_->name(), row + i / matrix_->cols(), i % matrix_->cols(),
                            wide[i], kLargest),
                "restore this tensor from where the checkpoint came from, or use --gguf_type bf16");
  }

  MatrixPtr matrix_;
  std::int64_t per_piece_;
  mutable std::mutex mutex_;
  mutable double worst_ = 0.0;
};

DType dtype_of(const GgufTensor& tensor) {
  if (tensor.is(GgmlType::kF16)) return DType::kF16;
  if (tensor.is(GgmlType::kBF16)) return DType::kBF16;
  return DType::kF32;
}

class GgufMatrix final : public Matrix {
 public:
  explicit GgufMatrix(const GgufModel::Entry& entry)
      : entry_(entry), quantised_(entry.tensor->is(GgmlType::kQ80)) {
    const GgufTensor& tensor = *entry.tensor;
    if (!quantised_ && !tensor.is(GgmlType::kF32) && !tensor.is(GgmlType::kF16) &&
        !tensor.is(GgmlType::kBF16)) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("{}: tensor {} is {}, needed is F32, F16, BF16 or Q8_0",
                      entry.file->path().string(), tensor.name, tensor.type_name()),
          "use a file of one of these types: what other quantisations lost cannot come back");
    }
    cols_ = tensor.shape.empty() ? 1 : tensor.shape.back();
    row_bytes_ = static_cast<std::uint64_t>(
        quantised_ ? cols_ / kQ8Values * kQ8Bytes : cols_ * kernels::dtype_size(dtype_of(tensor)));
    rows_ = static_cast<std::int64_t>(tensor.bytes() / row_bytes_);
  }
  std::string_view name() const override { return entry_.tensor->name; }
  std::int64_t rows() const override { return rows_; }
  std::int64_t cols() const override { return cols_; }
  std::uint64_t input_bytes() const override { return entry_.tensor->bytes(); }
  void read(std::int64_t begin, std::int64_t count, float* out, Workbench& bench) const override {
    if (quantised_) {
      decode_q8_0(stored(begin, count, bench), count * cols_, out);
      return;
    }
    read_as(begin, count, View(out, DType::kF32, {count, cols_}), bench);
  }
  void read_as(std::int64_t begin, std::int64_t count, const View& out,
               Workbench& bench) const override {
    if (quantised_) {
      Matrix::read_as(begin, count, out, bench);
      return;
    }
    const DType dtype = dtype_of(*entry_.tensor);
    bench.caster().cast(ConstView(stored(begin, count, bench), dtype, {count, cols_}), {}, out);
  }
  void prefetch(std::int64_t begin, std::int64_t count) const override {
    entry_.file->file().will_need(place(begin), static_cast<std::uint64_t>(count) * row_bytes_);
  }

 private:
  std::uint64_t place(std::int64_t row) const {
    return entry_.tensor->begin + static_cast<std::uint64_t>(row) * row_bytes_;
  }
  const std::byte* stored(std::int64_t row, std::int64_t count, Workbench& bench) const {
    return bench.read(entry_.file->file(), place(row), static_cast<std::size_t>(count) * row_bytes_,
                      kStoredSlot);
  }

  GgufModel::Entry entry_;
  bool quantised_;
  std::int64_t rows_ = 0, cols_ = 1;
  std::uint64_t row_bytes_ = 0;
};

class GgufCopyRecipe final : public Recipe {
 public:
  GgufCopyRecipe(const GgufModel::Entry& entry, std::uint64_t offset, std::uint64_t bytes)
      : file_(entry.file->file()), begin_(entry.tensor->begin + offset), bytes_(bytes) {}
  std::size_t pieces() const override {
    return static_cast<std::size_t>((bytes_ + kPieceBytes - 1) / kPieceBytes);
  }
  std::uint64_t input_bytes() const override { return bytes_; }
  void prefetch(std::size_t piece) const override {
    file_.will_need(begin_ + piece * kPieceBytes, size(piece));
  }
  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::uint64_t offset = piece * kPieceBytes, bytes = size(piece);
    sink.write(0, offset, bench.read(file_, begin_ + offset, bytes, 0), bytes);
  }

 private:
  std::uint64_t size(std::size_t piece) const {
    return std::min(kPieceBytes, bytes_ - piece * kPieceBytes);
  }
  const MappedFile& file_;
  std::uint64_t begin_, bytes_;
};

}  // namespace

std::shared_ptr<const Recipe> concat_recipe(std::vector<RecipePart> parts) {
  return std::make_shared<ConcatRecipe>(std::move(parts));
}
MatrixPtr transposed_matrix(MatrixPtr block) {
  return std::make_shared<TransposedMatrix>(std::move(block));
}
std::shared_ptr<const Recipe> q8_0_recipe(MatrixPtr matrix) {
  return std::make_shared<Q8Recipe>(std::move(matrix));
}
MatrixPtr gguf_matrix(const GgufModel::Entry& tensor) {
  return std::make_shared<GgufMatrix>(tensor);
}
std::shared_ptr<const Recipe> gguf_copy_recipe(const GgufModel::Entry& tensor, std::uint64_t offset,
                                               std::uint64_t bytes) {
  return std::make_shared<GgufCopyRecipe>(tensor, offset, bytes);
}

}  // namespace ds::convert
