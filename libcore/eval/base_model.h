// A base model with its tokenizer, and an adapter on top of it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "libcore/config/model_config.h"
#include "libcore/io/checkpoint_index.h"
#include "libcore/model/deepseek.h"
#include "libcore/text/chat_template.h"
#include "libcore/text/tokenizer.h"

namespace ds {

// A base model that was found and understood; its weights are not read yet.
struct BaseModel {
  std::string name;              // as the user gave it
  std::filesystem::path folder;  // where it is
  ModelConfig config;
  std::optional<Tokenizer> tokenizer;          // absent when the folder has none we can read
  std::string tokenizer_problem;               // why it is absent
  const Tokenizer& require_tokenizer() const;  // throws Error(kBadInput)
};
// Throws what find_model and load_model_config throw.
BaseModel open_base_model(const std::string& name, const ModelSearchPaths& paths);

// A template's name, or `auto`: by the tokenizer's template text, else by the model class. `said`
// is a sentence for people when the choice was not certain. Throws Error(kUsage) for an unknown
// name.
ChatTemplate choose_template(const std::string& spelling, const BaseModel& base, std::string& said);

// The weights with the adapter of a folder (empty: none), for sequences of at most `max_positions`.
std::unique_ptr<DeepSeekModel> load_with_adapter(const BaseModel& base,
                                                 const std::filesystem::path& adapter, DType dtype,
                                                 std::int64_t max_positions);

// SHA-256 over config.json and every tensor's name, dtype, shape and place.
std::string model_digest(const std::filesystem::path& folder, const Checkpoint& checkpoint);
// The same with bytes taken from sixteen places of every file: tells models of one shape apart
// without reading them.
std::string model_fingerprint(const std::filesystem::path& folder, const Checkpoint& checkpoint);

}  // namespace ds
