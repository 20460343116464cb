// The DeepSeek chat templates, written natively (reference/text.md sections 4, 5).
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "libcore/text/message.h"
#include "libcore/text/python_json.h"

namespace ds {

enum class ChatTemplate { kV2, kV3, kR1, kV31 };
std::string_view chat_template_name(ChatTemplate kind);  // "v2", "v3", "r1", "v3.1"
std::optional<ChatTemplate> parse_chat_template(std::string_view name);

struct DetectedTemplate {
  std::optional<ChatTemplate> kind;  // absent: none of DeepSeek's
  bool published = false;            // the published text itself, by hash
  // What a user should know, a sentence each: a known variant, broken delimiters, ...
  std::vector<std::string> notes;
};
// From the template text by hash, else by its marks (think tokens, tool grammar).
DetectedTemplate examine_chat_template(std::string_view template_text);
// The kind alone.
std::optional<ChatTemplate> detect_chat_template(std::string_view template_text);

struct RenderOptions {
  ChatTemplate kind = ChatTemplate::kV31;
  bool add_generation_prompt = false;
  bool thinking = false;
  // Training form: the reasoning of the last assistant turn (its `reasoning`, else what stands
  // before </think> in its content) is kept, as <think>R</think>A (V3.1) or
  // <think>\nR\n</think>\n\nA (R1), which the official template never produces. With it, only that
  // turn differs from the plain rendering. V2 and V3 have no such form.
  bool keep_last_reasoning = false;
  std::string bos = "<｜begin▁of▁sentence｜>";
  std::string eos = "<｜end▁of▁sentence｜>";
};

// A rendered conversation: the text, and which bytes are the assistant's own words (reasoning,
// answers, calls and their end-of-sentence; not the markers a prompt ends with), one span a message
// that has any, in order.
struct RenderedSpan {
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t message = 0;  // index in Conversation::messages
};
struct RenderedChat {
  std::string text;
  std::vector<RenderedSpan> assistant;
};

// Renders as the official template does for input the template accepts (byte for byte, its defects
// included); input it mishandles is repaired first by normalise_conversation(). The tools block of
// text.md section 5 is appended to the system text when conversation.tools_json is not empty (V3.1
// only). Throws Error(kBadInput) naming the message: content that is null where the template needs
// one, tools or tool messages that the template has no form for, reasoning to be kept likewise.
RenderedChat render_chat(const Conversation& conversation, const RenderOptions& options);

// Repairs what a template mishandles, and reports each repair, and what cannot be repaired, in a
// sentence that names the message (counted from 1): null content, reasoning that is not the
// assistant's, empty content beside calls (V3 and R1 drop such calls), content beside calls (V3,
// R1: dropped calls, not repaired), an assistant message before any user (V3.1: no marker, not
// repaired).
std::vector<std::string> normalise_conversation(Conversation& conversation, ChatTemplate kind);

}  // namespace ds
