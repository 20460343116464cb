// The DeepSeek chat templates, written natively (reference/text.md sections 4, 5).
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/text/message.h"

namespace ds {

enum class ChatTemplate { kV2, kV3, kR1, kV31 };
std::string_view chat_template_name(ChatTemplate kind);  // "v2", "v3", "r1", "v3.1"
std::optional<ChatTemplate> parse_chat_template(std::string_view name);
// From the template text by hash, else by its marks (think tokens, tool grammar); nullopt: unknown.
std::optional<ChatTemplate> detect_chat_template(std::string_view template_text);

struct RenderOptions {
  ChatTemplate kind = ChatTemplate::kV31;
  bool add_generation_prompt = false;
  bool thinking = false;
  // Training form: the reasoning of the last assistant turn is kept, as <think>R</think>A (V3.1) or
  // <think>\nR\n</think>\n\nA (R1), which the official template never produces. With it, only that
  // turn differs from the plain rendering.
  bool keep_last_reasoning = false;
  std::string bos = "<｜begin▁of▁sentence｜>";
  std::string eos = "<｜end▁of▁sentence｜>";
};

// A rendered conversation: the text, and which bytes are the assistant's own words (answers, calls
// and their end-of-sentence), one span a message that has any.
struct RenderedSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t message = 0;  // index in Conversation::messages
};
struct RenderedChat {
  std::string text;
  std::vector<RenderedSpan> assistant;
};

// Renders as the official template does for input the template accepts (byte for byte); input it
// mishandles (tool_calls: [], object arguments, part-list content, null content, unknown roles,
// reasoning_content) is repaired first by normalise_conversation(). The tools block of text.md
// section 5 is appended to the system text when conversation.tools is not empty.
// Throws Error(kBadInput) naming the message.
RenderedChat render_chat(const Conversation& conversation, const RenderOptions& options);

// json.dumps of Python with default separators; ensure_ascii as given; key order kept.
std::string python_json(const nlohmann::ordered_json& value, bool ensure_ascii);

}  // namespace ds
