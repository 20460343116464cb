// Spoilt models: every rule on checkpoints finds one, in the right place.
#pragma once

#include <functional>
#include <vector>

#include "tests/core/check/model_fixture.h"

namespace ds::test {

// A spoilt model: `model` before it is written, `files` after.
struct Case {
  const char* rule;
  const char* place;  // part of file, tensor or key of the finding
  std::function<void(Model&)> model;
  std::function<void(const std::filesystem::path&)> files;
};

inline constexpr const char* kQ = "model.layers.1.self_attn.q_b_proj.weight";
inline constexpr const char* kQScale = "model.layers.1.self_attn.q_b_proj.weight_scale_inv";
inline constexpr const char* kExpert = "model.layers.1.mlp.experts.3.up_proj.weight";
inline constexpr const char* kIndex = "model.safetensors.index.json";

// Replaces `from` by `to` of the same or another length in the header of shard 1; the header's
// length is set anew.
inline std::function<void(const std::filesystem::path&)> edit_header(const std::string& from,
                                                                     const std::string& to) {
  return [=](const std::filesystem::path& folder) {
    std::string bytes = read_text(folder / kShard1);
    std::uint64_t length = 0;
    std::memcpy(&length, bytes.data(), 8);
    std::string header = bytes.substr(8, length);
    const std::size_t at = header.find(from);
    REQUIRE_MESSAGE(at != std::string::npos, from);
    header.replace(at, from.size(), to);
    write_text(folder / kShard1, Model::file_bytes(header, bytes.substr(8 + length)));
  };
}
inline std::function<void(const std::filesystem::path&)> edit_bytes(
    const std::function<void(std::string&)>& edit, const char* file = kShard1) {
  return [=](const std::filesystem::path& folder) {
    std::string bytes = read_text(folder / file);
    edit(bytes);
    write_text(folder / file, bytes);
  };
}
inline std::function<void(const std::filesystem::path&)> replace_file(const char* name,
                                                                      const std::string& text) {
  return [=](const std::filesystem::path& folder) { write_text(folder / name, text); };
}
// A file of one tensor entry, given as JSON text, with `data` bytes behind it.
inline std::function<void(const std::filesystem::path&)> entry(const std::string& text,
                                                               std::size_t data) {
  return [=](const std::filesystem::path& folder) {
    write_text(folder / kShard1, Model::file_bytes("{" + text + "}", std::string(data, '\0')));
  };
}

// A setting of config.json.
inline std::function<void(Model&)> config(const char* key, const nlohmann::json& value) {
  return [=](Model& m) { m.config[key] = value; };
}

const std::vector<Case>& container_cases();
const std::vector<Case>& architecture_cases();
const std::vector<Case>& quantisation_cases();
const std::vector<Case>& deep_cases();     // found only with the data read
const std::vector<Case>& plain_cases();    // of a BF16 model
const std::vector<Case>& softmax_cases();  // of a V2 model

}  // namespace ds::test
