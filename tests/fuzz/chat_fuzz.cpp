// Bytes as a conversation: the first byte picks template and options, then every zero byte ends a
// message whose first byte picks its role and form. Rendering gives spans in order, or an Error.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "libcore/base/error.h"
#include "libcore/text/chat_template.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

ds::Message message_of(std::string_view text) {
  ds::Message message;
  const auto form = static_cast<unsigned char>(text[0]);
  message.role = static_cast<ds::Role>(form & 3);
  const std::string body(text.substr(1));
  if ((form & 4) == 0) message.content = body;
  if ((form & 8) != 0) message.reasoning = body;
  if ((form & 16) != 0) message.tool_calls.push_back({"f", body});
  if ((form & 32) != 0) message.tool_calls.push_back({body, "{}"});
  message.prefix = (form & 64) != 0;
  return message;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  ds::RenderOptions options;
  options.kind = static_cast<ds::ChatTemplate>(data[0] & 3);
  options.add_generation_prompt = (data[0] & 4) != 0;
  options.thinking = (data[0] & 8) != 0;
  options.keep_last_reasoning = (data[0] & 16) != 0;
  std::string_view rest(reinterpret_cast<const char*>(data) + 1, size - 1);
  ds::Conversation conversation;
  while (!rest.empty()) {
    const std::size_t end = rest.find('\0');
    const std::string_view part = rest.substr(0, end);
    if (!part.empty()) conversation.messages.push_back(message_of(part));
    rest.remove_prefix(end == std::string_view::npos ? rest.size() : end + 1);
  }
  if ((data[0] & 32) != 0 && !conversation.messages.empty()) {
    conversation.tools_json = conversation.messages[0].content.value_or("");
  }
  if ((data[0] & 64) != 0) ds::normalise_conversation(conversation, options.kind);
  try {
    const ds::RenderedChat chat = ds::render_chat(conversation, options);
    std::size_t at = 0;
    for (const ds::RenderedSpan& span : chat.assistant) {
      require(span.begin >= at && span.end > span.begin && span.end <= chat.text.size());
      require(span.message < conversation.messages.size());
      at = span.end;
    }
  } catch (const ds::Error&) {
  }
  ds::examine_chat_template({reinterpret_cast<const char*>(data), size});
  return 0;
}
