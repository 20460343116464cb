// The text of a chat template, wherever it is kept.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "libcore/check/finding.h"
#include "libcore/config/model_config.h"
#include "libcore/text/chat_template.h"

namespace ds::check {

struct TemplateText {
  std::string file;  // as findings name it
  std::string key;   // where in it, may be empty
  const std::string& text;
  std::function<bool(const std::string&)> has_token;  // whether the vocabulary has it
  const ModelConfig* model = nullptr;                 // whose template it is, when that is known
};
// Delimiters, likeness to the published ones, tokens that are misspelt or not in the vocabulary,
// and what it writes on probe conversations. Returns which template it is, if any.
std::optional<ChatTemplate> check_template_text(const TemplateText& subject, Findings& findings);
// Only what it writes, compared with the native rendering of `kind`.
void check_template_writing(const TemplateText& subject, ChatTemplate kind, Findings& findings);

}  // namespace ds::check
