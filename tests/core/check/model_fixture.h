// A small sound checkpoint in FP8 with scales, in two shards with an index, to be spoilt.
#pragma once

#include <doctest/doctest.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <vector>

#include "kernels/types.h"
#include "libcore/base/rng.h"
#include "libcore/check/checks.h"
#include "libcore/check/deep.h"
#include "libcore/check/finding.h"
#include "libcore/io/safetensors.h"
#include "libcore/io/safetensors_header.h"
#include "tests/support/paths.h"
#include "tests/support/tiny_model.h"

namespace ds::test {

// A folder that is removed at the end.
class TempFolder {
 public:
  explicit TempFolder(const std::string& name) : root_(make_temp_dir(name)) {}
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(root_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;
  const std::filesystem::path& root() const { return root_; }

 private:
  std::filesystem::path root_;
};

inline std::string read_text(const std::filesystem::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE_MESSAGE(in.good(), path.string());
  return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
}
inline void write_text(const std::filesystem::path& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

struct ModelTensor {
  std::string dtype;
  std::vector<std::int64_t> shape;
  std::string data;
  std::string shard;
};

// What a checkpoint is made of. Spoil it here, or spoil the files after write().
struct Model {
  nlohmann::json config;
  std::map<std::string, ModelTensor> tensors;
  nlohmann::json metadata{{"format", "pt"}};
  nlohmann::json index_metadata;           // null: total_size as it should be
  std::map<std::string, std::string> map;  // index entries that differ from the shards
  bool index = true;

  static std::uint64_t bits(const std::string& dtype) {
    kernels::DType known{};
    REQUIRE(kernels::parse_dtype(dtype, known));
    return static_cast<std::uint64_t>(kernels::dtype_bits(known));
  }
  // Gives a tensor dtype and shape and fills it.
  void set(const std::string& name, const std::string& dtype, std::vector<std::int64_t> shape,
           const std::string& shard = "") {
    ModelTensor& tensor = tensors[name];
    std::uint64_t elements = 1;
    for (const std::int64_t extent : shape) elements *= static_cast<std::uint64_t>(extent);
    tensor.dtype = dtype;
    tensor.shape = std::move(shape);
    tensor.data.clear();
    if (!shard.empty()) tensor.shard = shard;
    if (tensor.shard.empty()) tensor.shard = "model-00001-of-00002.safetensors";
    std::uint64_t stream = 7;
    for (const char c : name) stream = stream * 131 + static_cast<unsigned char>(c);
    const Rng rng(stream, 3);
    const auto append = [&](const void* data, std::size_t size) {
      tensor.data.append(static_cast<const char*>(data), size);
    };
    const bool scale = name.ends_with("_scale_inv");
    const bool norm = name.ends_with("norm.weight");
    for (std::uint64_t i = 0; i < elements; ++i) {
      float value = 0.05f * rng.normal(i);
      if (scale) value = 0.0001f * (1.0f + 0.3f * static_cast<float>(rng.bits(i) % 8));
      if (norm) value = 1.0f + value;
      if (dtype == "F32") {
        append(&value, 4);
      } else if (dtype == "BF16") {
        const kernels::bf16 narrow(value);
        append(&narrow, 2);
      } else if (dtype == "F16") {
        const kernels::f16 narrow(value);
        append(&narrow, 2);
      } else if (dtype == "F8_E4M3") {
        // One code at the limit, as quantising a block by its largest value gives.
        const kernels::fp8_e4m3 narrow(i == 0 ? 448.0f : 2000.0f * value);
        append(&narrow, 1);
      } else {
        break;
      }
    }
    if (tensor.data.empty()) tensor.data.assign(elements * bits(dtype) / 8, '\1');
  }
  ModelTensor& at(const std::string& name) {
    REQUIRE_MESSAGE(tensors.count(name) == 1, name);
    return tensors[name];
  }
  void rename(const std::string& from, const std::string& to) {
    ModelTensor tensor = at(from);
    tensors.erase(from);
    tensors[to] = std::move(tensor);
  }

  std::string header_of(const std::string& shard, std::string& data) const {
    nlohmann::ordered_json header;
    if (!metadata.is_null()) header["__metadata__"] = metadata;
    for (const std::uint64_t width : {64, 32, 16, 8, 4}) {  // wide dtypes first, for alignment
      for (const auto& [name, tensor] : tensors) {
        if (tensor.shard != shard || bits(tensor.dtype) != width) continue;
        header[name] = {{"dtype", tensor.dtype},
                        {"shape", tensor.shape},
                        {"data_offsets", {data.size(), data.size() + tensor.data.size()}}};
        data += tensor.data;
      }
    }
    std::string text = header.is_null() ? "{}" : header.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    return text;
  }
  static std::string file_bytes(const std::string& header, const std::string& data) {
    std::string bytes;
    for (int i = 0; i < 8; ++i) {
      bytes +=
          static_cast<char>(static_cast<unsigned char>(std::uint64_t{header.size()} >> (8 * i)));
    }
    return bytes + header + data;
  }
  void write(const std::filesystem::path& folder) const {
    std::filesystem::create_directories(folder);
    write_text(folder / "config.json", config.dump(2));
    std::map<std::string, std::string> shards;
    nlohmann::json weight_map = nlohmann::json::object();
    std::uint64_t total = 0;
    for (const auto& [name, tensor] : tensors) {
      shards[tensor.shard];
      weight_map[name] = tensor.shard;
      total += tensor.data.size();
    }
    for (auto& [shard, data] : shards) {
      const std::string header = header_of(shard, data);
      write_text(folder / shard, file_bytes(header, data));
    }
    if (!index) return;
    for (const auto& [name, shard] : map) {
      if (shard.empty()) {
        weight_map.erase(name);
      } else {
        weight_map[name] = shard;
      }
    }
    const nlohmann::json meta =
        index_metadata.is_null() ? nlohmann::json{{"total_size", total}} : index_metadata;
    write_text(folder / "model.safetensors.index.json",
               nlohmann::json{{"metadata", meta}, {"weight_map", weight_map}}.dump(2));
  }
};

inline constexpr const char* kShard1 = "model-00001-of-00002.safetensors";
inline constexpr const char* kShard2 = "model-00002-of-00002.safetensors";

// The tiny model's names and shapes; matrices of layers in FP8 with scales, the rest in BF16.
inline Model sound_model(TinyModel tiny = {.mtp = true}, bool fp8 = true) {
  TempFolder folder("tiny");
  write_tiny_model(folder.root(), tiny);
  const SafetensorsFile file = SafetensorsFile::open(folder.root() / "model.safetensors");
  Model model;
  model.config = nlohmann::json::parse(tiny_config(tiny));
  model.config["torch_dtype"] = "bfloat16";
  model.config["rope_scaling"]["original_max_position_embeddings"] = 32;
  if (fp8) {
    model.config["quantization_config"] = {{"activation_scheme", "dynamic"},
                                           {"fmt", "e4m3"},
                                           {"quant_method", "fp8"},
                                           {"weight_block_size", {128, 128}}};
  }
  for (const TensorInfo& tensor : file.tensors()) {
    const bool late = tensor.name.find("layers.2.") != std::string::npos ||
                      tensor.name.find("layers.3.") != std::string::npos;
    const std::string shard = late ? kShard2 : kShard1;
    const bool matrix = tensor.shape.size() == 2 &&
                        tensor.name.find("_proj") != std::string::npos &&
                        tensor.name.find("eh_proj") == std::string::npos;
    const bool bias = tensor.name.ends_with("e_score_correction_bias");
    if (matrix && fp8) {
      model.set(std::string(tensor.name), "F8_E4M3", tensor.shape.copy(), shard);
      model.set(std::string(tensor.name) + "_scale_inv", "F32",
                {(tensor.shape[0] + 127) / 128, (tensor.shape[1] + 127) / 128}, shard);
    } else {
      model.set(std::string(tensor.name), bias ? "F32" : "BF16", tensor.shape.copy(), shard);
    }
  }
  return model;
}

inline std::vector<check::Finding> check_folder(const std::filesystem::path& folder,
                                                bool deep = false) {
  check::Findings findings;
  const check::CheckpointTarget target(folder, findings);
  const check::DeepOptions options{.threads = 2, .progress = {}};
  check::check_checkpoint(target, findings, deep ? &options : nullptr);
  return findings.sorted();
}

// Rules on GGUF files and inference shards, which have tests of their own.
inline bool of_other_form(const check::Rule& rule) {
  return rule.id >= "DS400" && rule.id < "DS480";
}

inline std::string describe(const std::vector<check::Finding>& findings) {
  std::string text;
  for (const check::Finding& finding : findings) {
    text += std::string(finding.rule->id) + " " + std::string(finding.rule->name) + " [" +
            finding.tensor + "|" + finding.key + "] " + finding.message + "\n";
  }
  return text.empty() ? "(none)" : text;
}

inline const check::Finding* find(const std::vector<check::Finding>& findings,
                                  std::string_view rule) {
  for (const check::Finding& finding : findings) {
    if (finding.rule->name == rule) return &finding;
  }
  return nullptr;
}

// Expects the rule among the findings, and notes it in `seen`; `alone`: and no error or warning of
// another one.
inline check::Finding expect_finding(const std::vector<check::Finding>& findings,
                                     const std::string& rule, std::set<std::string>& seen,
                                     bool alone) {
  CAPTURE(rule);
  const check::Finding* found = find(findings, rule);
  REQUIRE_MESSAGE(found != nullptr, describe(findings));
  seen.insert(rule);
  for (const check::Finding& other : findings) {
    const bool fine =
        !alone || other.rule->name == rule || other.rule->severity == check::Severity::kNote;
    CHECK_MESSAGE(fine, describe(findings));
  }
  CHECK(found->message.find(found->file) == 0);
  return *found;
}

}  // namespace ds::test
