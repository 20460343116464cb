// config.json of a result, and the small files that make it load at once.
#pragma once

#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <string>

namespace ds::convert {

// FOLDER/config.json with the order of its keys kept. Throws Error(kBadInput).
nlohmann::ordered_json read_config(const std::filesystem::path& folder);
// The dtype in the spelling the file uses (torch_dtype, dtype or both), and no quantization_config.
void set_dtype(nlohmann::ordered_json& config, const std::string& torch_name);
// The quantization_config block of FP8 weights; scale_fmt "ue8m0" or empty.
void set_fp8(nlohmann::ordered_json& config, const std::string& scale_fmt);
std::string config_text(const nlohmann::ordered_json& config);

// Tokenizer, template, generation settings, remote code and licence of a model folder: name ->
// text.
std::map<std::string, std::string> side_files(const std::filesystem::path& folder);

}  // namespace ds::convert
