// A golden model loaded for a test, with everything that running it needs.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "libcore/config/lora_config.h"
#include "libcore/io/safetensors.h"
#include "libcore/model/adapter_io.h"
#include "libcore/model/deepseek.h"
#include "tests/support/paths.h"

namespace ds::test {

// The goldens folder, or empty with a message: the caller returns.
inline std::filesystem::path goldens() {
  const auto shared = shared_dir();
  if (shared.empty()) {
    MESSAGE("skipped: the shared goldens are not beside this checkout");
    return {};
  }
  return shared / "goldens";
}

inline nlohmann::json read_json(const std::filesystem::path& path) {
  std::ifstream in(path);
  REQUIRE_MESSAGE(in.good(), path.string());
  return nlohmann::json::parse(in);
}

struct GoldenModel {
  ModelConfig config;
  std::unique_ptr<DeepSeekModel> model;
  Device device;
  Arena saved{"saved"};
  Arena scratch{"scratch"};
  Exec exec;
  LoraConfig lora;
  std::vector<LoraTarget> targets;

  explicit GoldenModel(const std::filesystem::path& folder, DType dtype = DType::kF32,
                       int threads = 2)
      : config(load_model_config(folder)),
        model(DeepSeekModel::load(config, Checkpoint::open(folder), dtype, 256)),
        device(Device::cpu(threads)),
        exec{.device = device, .saved = saved, .scratch = scratch, .dtype = dtype} {}

  void load_lora(const std::filesystem::path& folder) {
    lora = load_lora_config(folder);
    targets = match_targets(lora, config);
    model->add_lora(lora, targets);
    load_adapter(folder, lora, model->parameters());
    model->allocate_gradients();
  }
};

// Rows of [batch, length] id, label and mask tensors as segments without padding.
struct GoldenBatch {
  TokenBatch batch;
  std::vector<std::int64_t> lengths;
};

inline std::vector<std::int64_t> int_values(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* info = file.find(name);
  REQUIRE_MESSAGE(info != nullptr, name);
  std::vector<std::int64_t> values((info->end - info->begin) / 8);
  std::memcpy(values.data(), file.data(*info), info->end - info->begin);
  return values;
}

inline std::vector<float> float_values(const SafetensorsFile& file, const std::string& name) {
  const TensorInfo* info = file.find(name);
  REQUIRE_MESSAGE(info != nullptr, name);
  if (info->dtype == DType::kBF16) {
    std::vector<float> values((info->end - info->begin) / 2);
    for (std::size_t i = 0; i < values.size(); ++i) {
      kernels::bf16 element;
      std::memcpy(&element, file.data(*info) + 2 * i, 2);
      values[i] = static_cast<float>(element);
    }
    return values;
  }
  REQUIRE(info->dtype == DType::kF32);
  std::vector<float> values((info->end - info->begin) / 4);
  std::memcpy(values.data(), file.data(*info), info->end - info->begin);
  return values;
}

// `prefix` + "ids", and "labels" and "attention_mask" where they are there.
inline GoldenBatch read_batch(const SafetensorsFile& file, const std::string& prefix) {
  const TensorInfo* info = file.find(prefix + "ids");
  REQUIRE_MESSAGE(info != nullptr, (prefix + "ids"));
  const std::int64_t rows = info->shape[0];
  const std::int64_t length = info->shape[1];
  const auto ids = int_values(file, prefix + "ids");
  const bool has_labels = file.find(prefix + "labels") != nullptr;
  const auto labels =
      has_labels ? int_values(file, prefix + "labels") : std::vector<std::int64_t>{};
  const bool has_mask = file.find(prefix + "attention_mask") != nullptr;
  const auto mask =
      has_mask ? int_values(file, prefix + "attention_mask") : std::vector<std::int64_t>{};
  GoldenBatch golden;
  for (std::int64_t row = 0; row < rows; ++row) {
    Example example;
    for (std::int64_t i = 0; i < length; ++i) {
      const auto at = static_cast<std::size_t>(row * length + i);
      if (has_mask && mask[at] == 0) continue;
      example.ids.push_back(static_cast<std::int32_t>(ids[at]));
      example.labels.push_back(has_labels ? static_cast<std::int32_t>(labels[at]) : kNoTarget);
    }
    golden.lengths.push_back(static_cast<std::int64_t>(example.ids.size()));
    append_segment(golden.batch, example);
  }
  return golden;
}

// Logits of every position of a batch, [tokens, vocab].
inline std::vector<float> all_logits(GoldenModel& golden, const TokenBatch& batch) {
  std::vector<float> out;
  golden.model->logits(golden.exec, batch, [&](std::int64_t, const ConstView& rows) {
    for (std::int64_t r = 0; r < rows.rows(); ++r) {
      for (std::int64_t i = 0; i < rows.cols(); ++i) {
        out.push_back(rows.dtype() == DType::kF64
                          ? static_cast<float>(rows.as<double>()[r * rows.row_stride() + i])
                          : rows.as<float>()[r * rows.row_stride() + i]);
      }
    }
  });
  return out;
}

// Largest |a - b| over the rows of a batch against a padded [rows, length, vocab] golden.
inline double logits_difference(const std::vector<float>& ours, const std::vector<float>& golden,
                                const std::vector<std::int64_t>& lengths, std::int64_t length,
                                std::int64_t vocab, std::size_t rows) {
  double worst = 0.0;
  std::size_t at = 0;
  for (std::size_t row = 0; row < rows; ++row) {
    for (std::int64_t i = 0; i < lengths[row]; ++i) {
      for (std::int64_t v = 0; v < vocab; ++v, ++at) {
        const auto g =
            static_cast<std::size_t>((static_cast<std::int64_t>(row) * length + i) * vocab + v);
        const double difference = std::fabs(static_cast<double>(ours[at]) - golden[g]);
        worst = std::isnan(difference) ? INFINITY : std::max(worst, difference);
      }
    }
  }
  return worst;
}

}  // namespace ds::test
