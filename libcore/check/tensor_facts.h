// Sums up the tensors of an input.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string_view>

#include "libcore/check/input_facts.h"
#include "libcore/io/safetensors.h"

namespace ds::check {

class TensorReader {
 public:
  // Both must outlive the reader.
  TensorReader(const std::optional<ModelConfig>& config, TensorFacts& facts)
      : config_(config), facts_(facts) {}

  // A tensor of `file` whose name in Hugging Face layout is `name`. Reads a router bias, and up to
  // 64 values of a scale.
  void add(const SafetensorsFile& file, const TensorInfo& tensor, std::string_view name);

 private:
  void scale(const SafetensorsFile& file, const TensorInfo& tensor, std::uint64_t elements);

  const std::optional<ModelConfig>& config_;
  TensorFacts& facts_;
  std::map<std::int64_t, std::uint64_t> layers_;
  std::int64_t scales_ = 0;
};

}  // namespace ds::check
