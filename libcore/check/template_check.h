// The chat templates of a folder.
#pragma once

#include <filesystem>
#include <nlohmann/json_fwd.hpp>

#include "libcore/check/finding.h"
#include "libcore/config/model_config.h"
#include "libcore/text/tokenizer.h"

namespace ds::check {

// The template in use and any others (further entries of a list, the setting beside a file): their
// marks and tokens, and what they write. `settings` is tokenizer_config.json, null when it is no
// object; `model` may be null.
void check_chat_templates(const std::filesystem::path& folder, const Tokenizer& tokenizer,
                          const nlohmann::json& settings, const ModelConfig* model,
                          Findings& findings);

}  // namespace ds::check
