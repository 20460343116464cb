// A tiny model, adapters for it, and the program under test.
#pragma once

#include <doctest/doctest.h>

#include <cstring>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libcore/base/atomic_write.h"
#include "libcore/base/rng.h"
#include "libcore/config/lora_config.h"
#include "libcore/config/model_config.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/model/adapter_sources.h"
#include "tests/support/adapter_file.h"
#include "tests/tools/convert/fixture.h"

namespace ds::test {

// Its JSON product; the run must succeed.
inline nlohmann::json convert_json(std::vector<std::string> arguments) {
  arguments.insert(arguments.end(), {"--format", "json", "--threads", "2"});
  const Outcome outcome = convert(arguments);
  REQUIRE_MESSAGE(outcome.exit_code == 0, outcome.err);
  return nlohmann::json::parse(outcome.out);
}

struct StoredTensor {
  DType dtype = DType::kF32;
  std::vector<std::int64_t> shape;
  std::string bytes;
  std::string file;
  bool operator==(const StoredTensor&) const = default;
  std::vector<float> floats() const {
    const auto size = static_cast<std::size_t>(kernels::dtype_size(dtype));
    std::vector<float> out;
    for (std::size_t i = 0; i < bytes.size() / size; ++i) {
      out.push_back(adapter_value(reinterpret_cast<const std::byte*>(bytes.data()), dtype,
                                  static_cast<std::int64_t>(i)));
    }
    return out;
  }
};
using Tensors = std::map<std::string, StoredTensor>;

inline Tensors read_tensors(const std::filesystem::path& folder) {
  const Checkpoint checkpoint = Checkpoint::open(folder);
  Tensors out;
  for (const auto& [file, tensor] : checkpoint.entries()) {
    out[std::string(tensor->name)] = {
        tensor->dtype, tensor->shape.copy(),
        std::string(reinterpret_cast<const char*>(file->data(*tensor)),
                    static_cast<std::size_t>(tensor->bytes())),
        file->path().filename().string()};
  }
  return out;
}

inline std::vector<float> random_values(std::int64_t count, float deviation, std::uint64_t seed) {
  const Rng rng(seed, 3);
  std::vector<float> out(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < out.size(); ++i) out[i] = deviation * rng.normal(i);
  return out;
}

inline nlohmann::json lora_settings(const nlohmann::json& targets, int r = 4, double alpha = 8) {
  return {{"peft_type", "LORA"},       {"r", r},
          {"lora_alpha", alpha},       {"bias", "none"},
          {"target_modules", targets}, {"task_type", "CAUSAL_LM"}};
}

inline void write_adapter(const std::filesystem::path& folder, const nlohmann::json& settings,
                          const AdapterFile& file) {
  std::filesystem::create_directories(folder);
  file.write(folder);
  write_file(folder / kAdapterConfigFile, settings.dump());
}

// Random A and B for every module that the settings name; B is scaled by `b`.
inline AdapterFile random_adapter(const nlohmann::json& settings, const ModelConfig& model,
                                  float b = 0.05f) {
  const LoraConfig lora = parse_lora_config(settings.dump(), "test", WholeModules::kAllow);
  const auto targets = match_targets(lora, model, Unmatched::kAllow);
  AdapterFile file;
  std::uint64_t seed = 100;
  for (const AdapterSlot& slot : adapter_slots(targets, lora.use_dora)) {
    std::vector<std::int64_t> shape = slot.shape;
    if (slot.name.ends_with(".lora_embedding_A")) std::swap(shape[0], shape[1]);
    std::int64_t size = 1;
    for (const std::int64_t extent : shape) size *= extent;
    const bool is_b = slot.name.find("_B") != std::string::npos;
    auto values = random_values(size, is_b ? b : 0.3f, ++seed);
    if (slot.name.ends_with("magnitude_vector")) {
      for (float& value : values) value = 1.0f + std::abs(value);
    }
    file.set(kPrefix + slot.name, shape, values);
  }
  return file;
}

// root/model: a tiny F32 model.
struct MergeFixture {
  TempFolder root;
  ModelConfig config;
  explicit MergeFixture(const TinyModel& tiny = {}) {
    write_tiny_model(path("model"), tiny);
    config = load_model_config(path("model"));
  }
  std::string path(const std::string& name) const { return root / name; }
  // Names in the folder, for what a failed run leaves behind.
  std::vector<std::string> names() const {
    std::vector<std::string> out = root.names();
    std::sort(out.begin(), out.end());
    return out;
  }
  // The refusal's words; nothing may be left behind.
  std::string refusal(int code, const std::vector<std::string>& more = {}) const {
    const auto before = names();
    std::vector<std::string> arguments{"merge", path("model"), path("adapter"), path("out")};
    arguments.insert(arguments.end(), more.begin(), more.end());
    const Outcome outcome = convert(arguments);
    CHECK(outcome.exit_code == code);
    CHECK(outcome.out.empty());
    CHECK(names() == before);
    return outcome.err;
  }
};

}  // namespace ds::test
