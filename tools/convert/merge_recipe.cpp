#include "tools/convert/merge_recipe.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "libcore/base/error.h"

namespace ds::convert {

namespace {

constexpr std::int64_t kBlock = 128;
// f32 values of a piece: base, merged and stored rows stay near the core.
constexpr std::int64_t kPieceElements = 256 << 10;

float* floats(Workbench& bench, std::size_t slot, std::int64_t count) {
  return reinterpret_cast<float*>(
      bench.buffer(slot, static_cast<std::size_t>(count) * sizeof(float)));
}

// Pieces of whole rows; what each of them changed.
class MergedWeight : public Recipe {
 public:
  MergedWeight(MatrixPtr base, const LowRankUpdate& update, std::int64_t step, MergeReport& report)
      : base_(std::move(base)), update_(update), report_(report), cols_(base_->cols()) {
    const std::int64_t fitting = kPieceElements / std::max<std::int64_t>(1, cols_);
    per_piece_ = std::max(step, fitting / step * step);
    changes_.resize(static_cast<std::size_t>((base_->rows() + per_piece_ - 1) / per_piece_));
  }
  std::size_t pieces() const override { return changes_.size(); }
  std::uint64_t input_bytes() const override { return base_->input_bytes(); }
  void prefetch(std::size_t piece) const override { base_->prefetch(begin(piece), size(piece)); }
  void close(Tally& tally) const override {
    update_.release();
    Change change;
    for (const Change& piece : changes_) change.add(piece);
    const std::string_view name = base_->name();
    if (non_finite_base_ > 0) {
      tally.non_finite += non_finite_base_;
      tally.notes.push_back(fmt::format("tensor {}: {} values of the base are NaN or infinite",
                                        name, non_finite_base_.load()));
    }
    if (non_finite_result_ > 0) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("tensor {}: {} merged values are beyond the largest of the result's "
                              "dtype",
                              name, non_finite_result_.load()),
                  "use --dtype bf16 or f32; with those already in use the adapter is broken");
    }
    ++report_.weights;
    if (report_.largest_weight.empty() || !(change.largest <= report_.change.largest)) {
      report_.largest_weight = name;
    }
    report_.change.add(change);
    tally.max_abs_error =
        std::max(tally.max_abs_error, static_cast<double>(change.largest_rounding));
  }

 protected:
  std::int64_t begin(std::size_t piece) const {
    return static_cast<std::int64_t>(piece) * per_piece_;
  }
  std::int64_t size(std::size_t piece) const {
    return std::min(per_piece_, base_->rows() - begin(piece));
  }
  // Slots 0 and 1: the base's rows and the changed ones.
  void compute(std::size_t piece, Workbench& bench, float*& base, float*& merged) const {
    const std::int64_t count = size(piece);
    base = floats(bench, 0, count * cols_);
    merged = floats(bench, 1, count * cols_);
    base_->read(begin(piece), count, base, bench);
    update_.apply(begin(piece), count, base, merged, bench);
  }

  MatrixPtr base_;
  const LowRankUpdate& update_;
  MergeReport& report_;
  std::int64_t cols_;
  std::int64_t per_piece_ = 1;
  mutable std::vector<Change> changes_;  // by piece, so that their sum has one order
  mutable std::atomic<std::uint64_t> non_finite_base_{0};
  mutable std::atomic<std::uint64_t> non_finite_result_{0};
};

class MergeRecipe final : public MergedWeight {
 public:
  MergeRecipe(MatrixPtr base, const LowRankUpdate& update, DType dtype, MergeReport& report)
      : MergedWeight(std::move(base), update, 1, report), dtype_(dtype) {}

  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::int64_t count = size(piece);
    const std::int64_t elements = count * cols_;
    float* base = nullptr;
    float* merged = nullptr;
    compute(piece, bench, base, merged);
    const auto bytes = static_cast<std::uint64_t>(elements * kernels::dtype_size(dtype_));
    const float* stored = merged;
    View out(merged, DType::kF32, {count, cols_});
    if (dtype_ != DType::kF32) {
      out = View(bench.buffer(2, bytes), dtype_, {count, cols_});
      bench.caster().cast(ConstView(merged, DType::kF32, {count, cols_}), {}, out);
      float* wide = floats(bench, 3, elements);
      bench.caster().cast(out, {}, View(wide, DType::kF32, {count, cols_}));
      stored = wide;
    }
    Change change = measure_change(base, merged, stored, elements);
    if (!std::isfinite(change.largest) || !std::isfinite(change.largest_rounding)) {
      change = look_at(base, merged, stored, elements);
    }
    changes_[piece] = change;
    sink.write(0,
               static_cast<std::uint64_t>(begin(piece)) * static_cast<std::uint64_t>(cols_) *
                   static_cast<std::uint64_t>(kernels::dtype_size(dtype_)),
               out.data(), bytes);
  }

 private:
  // The rare piece with values that are not finite: whose they are. The change is that of the rest.
  Change look_at(const float* base, const float* merged, const float* stored,
                 std::int64_t elements) const {
    Change change;
    for (std::int64_t i = 0; i < elements; ++i) {
      if (!std::isfinite(base[i])) {
        ++non_finite_base_;
      } else if (!std::isfinite(stored[i])) {
        ++non_finite_result_;
      } else {
        change.add(measure_change(base + i, merged + i, stored + i, 1));
      }
    }
    return change;
  }
  DType dtype_;
};

class MergeFp8Recipe final : public MergedWeight {
 public:
  MergeFp8Recipe(MatrixPtr base, const LowRankUpdate& update, ScaleFormat format,
                 const Checkpoint::Entry& codes, const Checkpoint::Entry& scale, DType scale_dtype,
                 MergeReport& report)
      : MergedWeight(std::move(base), update, kBlock, report),
        format_(format),
        codes_(codes),
        scale_(scale),
        one_byte_(scale_dtype != DType::kF32),
        across_((cols_ + kBlock - 1) / kBlock) {}

  void make(std::size_t piece, Workbench& bench, PieceSink& sink) const override {
    const std::int64_t first = begin(piece), count = size(piece);
    const std::int64_t elements = count * cols_, high = (count + kBlock - 1) / kBlock;
    float* base = nullptr;
    float* merged = nullptr;
    compute(piece, bench, base, merged);
    const View codes(bench.buffer(2, static_cast<std::size_t>(elements)), DType::kF8E4M3,
                     {count, cols_});
    const View scale(floats(bench, 3, high * across_), DType::kF32, {high, across_});
    const ConstView values(merged, DType::kF32, {count, cols_});
    const auto kind =
        format_ == ScaleFormat::kUe8m0 ? Caster::Scale::kPowerOfTwo : Caster::Scale::kF32;
    if (std::isnan(bench.caster().quantise(values, kind, codes, scale))) {
      refuse(first, merged, elements);
    }
    keep_blocks(first, base, merged, codes, scale, bench);
    // What is stored, a band of rows at a time: the whole would be another copy in memory.
    constexpr std::int64_t kBand = 16;
    float* stored = floats(bench, 4, std::min(kBand, count) * cols_);
    Change change;
    for (std::int64_t row = 0; row < count; row += kBand) {
      const std::int64_t n = std::min(kBand, count - row);
      bench.caster().cast(codes.slice_rows(row, n), scale.slice_rows(row / kBlock, 1),
                          View(stored, DType::kF32, {n, cols_}));
      change.add(measure_change(base + row * cols_, merged + row * cols_, stored, n * cols_));
    }
    changes_[piece] = change;
    sink.write(0, static_cast<std::uint64_t>(first * cols_), codes.data(),
               static_cast<std::size_t>(elements));
    write_scales(first / kBlock * across_, scale, bench, sink);
  }
  void close(Tally& tally) const override {
    MergedWeight::close(tally);
    report_.blocks += static_cast<std::size_t>((base_->rows() + kBlock - 1) / kBlock * across_);
    report_.blocks_kept += kept_;
  }

 private:
  void write_scales(std::int64_t at, const ConstView& scale, Workbench& bench,
                    PieceSink& sink) const {
    const auto count = static_cast<std::size_t>(scale.size());
    if (!one_byte_) {
      sink.write(1, static_cast<std::uint64_t>(at) * sizeof(float), scale.data(),
                 count * sizeof(float));
      return;
    }
    // Powers of two: the exponent field is the E8M0 code (2^-127 has the field 0).
    std::byte* codes = bench.buffer(5, count);
    for (std::size_t i = 0; i < count; ++i) {
      codes[i] = static_cast<std::byte>(std::bit_cast<std::uint32_t>(scale.as<float>()[i]) >> 23U);
    }
    sink.write(1, static_cast<std::uint64_t>(at), codes, count);
  }
  // Blocks without a change get what the input has.
  void keep_blocks(std::int64_t first, const float* base, const float* merged, const View& codes,
                   const View& scale, Workbench& bench) const {
    if (codes_.tensor == nullptr) return;
    const ConstView given = read_scale(scale_, first / kBlock, scale.rows(), bench);
    const auto bytes = static_cast<std::size_t>(codes.rows() * cols_);
    const std::byte* input = nullptr;  // read when the first block is kept
    auto* output = static_cast<std::byte*>(codes.data());
    for (std::int64_t i = 0; i < scale.rows(); ++i) {
      const std::int64_t top = i * kBlock, bottom = std::min(top + kBlock, codes.rows());
      for (std::int64_t j = 0; j < across_; ++j) {
        const std::int64_t from = j * kBlock, width = std::min(kBlock, cols_ - from);
        const auto same = [&](std::int64_t row) {
          const std::int64_t at = row * cols_ + from;
          return std::memcmp(base + at, merged + at, static_cast<std::size_t>(width) * 4) == 0;
        };
        std::int64_t row = top;
        while (row < bottom && same(row)) ++row;
        if (row < bottom) continue;
        if (input == nullptr) {
          const std::uint64_t place =
              codes_.tensor->begin + static_cast<std::uint64_t>(first * cols_);
          input = bench.read(codes_.file->file(), place, bytes, 6);
        }
        for (row = top; row < bottom; ++row) {
          std::memcpy(output + row * cols_ + from, input + row * cols_ + from,
                      static_cast<std::size_t>(width));
        }
        scale.as<float>()[i * across_ + j] = given.as<float>()[i * across_ + j];
        ++kept_;
      }
    }
  }
  [[noreturn]] void refuse(std::int64_t first, const float* merged, std::int64_t elements) const {
    std::int64_t i = 0;
    while (i + 1 < elements && std::isfinite(merged[i])) ++i;
    throw Error(ExitCode::kBadInput,
                fmt::format("tensor {} at [{}, {}] is {} after the merge, FP8 blocks need finite "
                            "numbers",
                            base_->name(), first + i / cols_, i % cols_, merged[i]),
                "check the adapter and the base: one of them holds such values");
  }

  ScaleFormat format_;
  Checkpoint::Entry codes_, scale_;
  bool one_byte_;
  std::int64_t across_;
  mutable std::atomic<std::size_t> kept_{0};
};

}  // namespace

double MergeReport::rounding_lost() const {
  return change.squares > 0.0 ? std::sqrt(change.rounding_squares / change.squares) : 0.0;
}

nlohmann::json MergeReport::to_json() const {
  return {{"weights", weights},        {"largest_weight", largest_weight},
          {"largest", change.largest}, {"largest_rounding", change.largest_rounding},
          {"squares", change.squares}, {"rounding_squares", change.rounding_squares},
          {"blocks", blocks},          {"blocks_kept", blocks_kept}};
}

MergeReport MergeReport::from_json(const nlohmann::json& json) {
  // What is not finite is null in JSON.
  const auto number = [&json](const char* key) {
    const nlohmann::json& value = json.at(key);
    return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
  };
  MergeReport report;
  report.weights = json.at("weights");
  report.largest_weight = json.at("largest_weight");
  report.change = {static_cast<float>(number("largest")),
                   static_cast<float>(number("largest_rounding")), number("squares"),
                   number("rounding_squares")};
  report.blocks = json.at("blocks");
  report.blocks_kept = json.at("blocks_kept");
  return report;
}

std::shared_ptr<const Recipe> merge_recipe(MatrixPtr base, const LowRankUpdate& update, DType dtype,
                                           MergeReport& report) {
  return std::make_shared<MergeRecipe>(std::move(base), update, dtype, report);
}

std::shared_ptr<const Recipe> merge_fp8_recipe(MatrixPtr base, const LowRankUpdate& update,
                                               ScaleFormat format, const Checkpoint::Entry& codes,
                                               const Checkpoint::Entry& scale, DType scale_dtype,
                                               MergeReport& report) {
  return std::make_shared<MergeFp8Recipe>(std::move(base), update, format, codes, scale,
                                          scale_dtype, report);
}

}  // namespace ds::convert
