// The tokenizer of a model in the keys of a GGUF file (reference/formats.md section 8).
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "libcore/config/model_config.h"
#include "libcore/io/gguf.h"

namespace ds::convert {

// Adds "tokenizer.*" from the files of `folder`: tokenizer.json, or tiktoken.model (merges are
// rebuilt from its ranks), with tokenizer_config.json and chat_template.jinja where they are. A
// folder with neither adds nothing. `notes` gets a sentence for everything that is missing. Throws
// Error(kBadInput) for a broken file and for tokens beyond vocab_size.
void add_tokenizer_keys(const std::filesystem::path& folder, const ModelConfig& config,
                        GgufKeyWriter& keys, std::vector<std::string>& notes);

// tokenizer.json and tokenizer_config.json out of a file's keys: name -> text. Nothing, and a note
// saying why, when the keys are absent or the pre-tokenizer is not deepseek-v3 (a GGUF file names
// its pre-tokenizer; the patterns are not in it). Throws Error(kBadInput) for keys that contradict
// each other.
std::map<std::string, std::string> tokenizer_files(const GgufFile& file,
                                                   std::vector<std::string>& notes);

// "pre_tokenizer" of the published DeepSeek-V3 tokenizer.json (reference/text.md section 1).
nlohmann::json deepseek_v3_pre_tokenizer();

// Merges of a tiktoken rank file, in rank order: how byte-pair encoding with only the lower ranks
// makes each token out of two parts. `ranks` is the text of the file (lines of base64 and rank).
// `tokens` gets the token of each rank in the byte map's letters. Throws Error(kBadInput).
struct TiktokenVocabulary {
  std::vector<std::string> tokens;
  std::vector<std::string> merges;  // "left right"
};
TiktokenVocabulary read_tiktoken(std::string_view ranks, const std::string& name);

}  // namespace ds::convert
