// What a row becomes.
#pragma once

#include <string>
#include <vector>

#include "libcore/data/formats.h"
#include "libcore/text/chat_template.h"
#include "libcore/text/tokenizer.h"

namespace ds::convert {

enum class TargetFormat { kMessages, kAlpaca, kShareGpt, kText, kTokens };

struct TargetOptions {
  TargetFormat to = TargetFormat::kMessages;
  ChatTemplate chat_template = ChatTemplate::kV31;
  bool thinking = false;               // for rows that do not say it
  bool add_generation_prompt = false;  // likewise
  bool keep_reasoning = false;         // of the last answer, in text and tokens
};

// Writes rows of one format; const functions may be called from several threads at once.
class Target {
 public:
  // `tokenizer` may be null; needs_tokenizer() says when it may not. It must outlive the target.
  Target(const TargetOptions& options, const Tokenizer* tokenizer);
  // What rows must be like.
  RowRules rules() const;
  bool needs_tokenizer(DataFormat from) const;
  // Appends `row`, whose content must be there and is used up, as one line to `out`. Returns false
  // when it cannot be written: nothing is appended then and row.problem says why. Repairs are added
  // to row.repairs.
  bool write(ConvertedRow& row, std::string& out) const;

 private:
  bool write_conversation(ConvertedRow& row, Conversation& conversation, std::string& out) const;
  RenderedChat render(ConvertedRow& row, Conversation& conversation) const;
  bool write_tokens(ConvertedRow& row, std::string& out) const;
  bool write_chat_tokens(ConvertedRow& row, Conversation& conversation, std::string& out) const;
  bool write_parsed(ConvertedRow& row, const std::string& text, std::string& out) const;
  TargetOptions options_;
  const Tokenizer* tokenizer_;
  std::string bos_;
  std::string eos_;
};

}  // namespace ds::convert
