// An adapter folder beside the model it adapts: which weight is changed by what.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "libcore/config/lora_config.h"
#include "libcore/io/safetensors.h"
#include "libcore/model/adapter_sources.h"
#include "tools/convert/recipe.h"

namespace ds::convert {

// weight += scaling * left right, for a weight [rows, cols] of the model; with a magnitude each row
// is then brought to the norm that the magnitude says (DoRA). Holds no values: they are read from
// the adapter file, which must outlive it.
class LowRankUpdate {
 public:
  LowRankUpdate(const SafetensorsFile& file, const LoraTarget& target, const AdapterSource& a,
                const AdapterSource& b, const AdapterSource& magnitude);

  const ModuleInfo& module() const { return target_.module; }
  std::int64_t rank() const { return target_.rank; }
  double alpha() const { return target_.alpha; }
  double scaling() const { return target_.scaling; }
  std::string weight_name() const { return target_.module.path + ".weight"; }
  std::int64_t rows() const { return rows_; }
  std::int64_t cols() const { return cols_; }
  bool has_magnitude() const { return magnitude_.tensor != nullptr; }
  // B or A is zero and there is no magnitude: the weight stays what it is. Reads the values.
  bool is_zero() const;

  // out = the changed rows [begin, begin + count) of the weight whose rows are `base`; both
  // [count, cols], contiguous, out may not be base. Uses the bench's buffers from kMatrixSlots + 4
  // on. Thread-safe.
  void apply(std::int64_t begin, std::int64_t count, const float* base, float* out,
             Workbench& bench) const;
  // Where A [rank, in], B [out, rank] and the magnitude [1, out] lie in the file; an embedding's
  // are those of a linear layer over one-hot rows.
  AdapterSource factor_a() const;
  AdapterSource factor_b() const;
  const AdapterSource& magnitude() const { return magnitude_; }
  // Of another rank range: ranks [first, first + rank), the scaling unchanged.
  LowRankUpdate ranks(std::int64_t first, std::int64_t rank) const;
  const LoraTarget& target() const { return target_; }
  // Its pages of the adapter file need not stay in memory.
  void release() const;
  float value(const AdapterSource& source, std::int64_t row, std::int64_t col) const;

 private:
  const SafetensorsFile& file_;
  LoraTarget target_;
  AdapterSource left_;   // [rows, rank]
  AdapterSource right_;  // [rank, cols]
  AdapterSource magnitude_;
  std::int64_t rows_ = 0, cols_ = 0;
};

struct AdapterFolder {
  std::filesystem::path folder;
  LoraConfig lora;
  SafetensorsFile file;
  std::vector<LoraTarget> targets;
  std::vector<LowRankUpdate> updates;  // one per target, same order
  std::vector<WholeWeight> whole;
};
// `modules` are the model's. Reads and checks everything, values included. Not movable once opened:
// its updates point into it. Throws Error(kBadInput) for each case of load_adapter but whole
// weights, which are returned, and for DoRA on the embedding.
std::unique_ptr<AdapterFolder> open_adapter_folder(const std::filesystem::path& folder,
                                                   const std::vector<ModuleInfo>& modules);

}  // namespace ds::convert
