// Rendered conversations and logged tool calls, read back into messages.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/text/chat_template.h"
#include "libcore/text/message.h"

namespace ds {

struct ParseOptions {
  ChatTemplate kind = ChatTemplate::kV31;
  std::string bos = "<｜begin▁of▁sentence｜>";
  std::string eos = "<｜end▁of▁sentence｜>";
};

struct ParsedChat {
  std::vector<Message> messages;
  std::optional<bool> thinking;  // what the prompt at the end asks for
  bool v3_calls = false;         // calls in the grammar of V3 and R1 were among them
  bool prompt_at_end = false;    // the text ends with a generation prompt, which is no message
  bool cut_answer = false;       // the last answer has no end-of-sentence
};

// Reads the text of a rendered conversation. System text is one message, a tools block stays in it.
// A tool call may have either grammar; arguments are as they stand. Rendering the result again
// gives the text (V3.1: unless an answer holds </think>). Throws Error(kBadInput), a sentence with
// the byte it is about, for text that is no rendering of the template.
ParsedChat parse_chat(std::string_view text, const ParseOptions& options);

// Whether `text` holds a mark of a tool call or a tool result.
bool has_tool_marks(std::string_view text);

// What a turn whose text holds tool marks says: an assistant's words, calls and results as messages
// of their own. `after_prompt`: the text is the assistant's, else it is tool results. Throws as
// parse_chat.
ParsedChat parse_tool_text(std::string_view text, bool after_prompt, const ParseOptions& options);

}  // namespace ds
