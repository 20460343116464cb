// Repairs of conversations before rendering.
#include <fmt/format.h>

#include "libcore/text/chat_template.h"

namespace ds {
namespace {

std::string_view role_name(Role role) {
  switch (role) {
    case Role::kSystem:
      return "system";
    case Role::kUser:
      return "user";
    case Role::kAssistant:
      return "assistant";
    case Role::kTool:
      break;
  }
  return "tool";
}

}  // namespace

std::vector<std::string> normalise_conversation(Conversation& conversation, ChatTemplate kind) {
  std::vector<std::string> said;
  const std::string_view name = chat_template_name(kind);
  const bool drops_calls = kind == ChatTemplate::kV3 || kind == ChatTemplate::kR1;
  bool user = false;
  for (std::size_t i = 0; i < conversation.messages.size(); ++i) {
    Message& message = conversation.messages[i];
    const auto say = [&](const std::string& what) {
      said.push_back(fmt::format("message {}: {}", i + 1, what));
    };
    const bool assistant = message.role == Role::kAssistant;
    user = user || message.role == Role::kUser;
    if (message.reasoning && !assistant) {
      say(fmt::format("reasoning of a {} message, dropped", role_name(message.role)));
      message.reasoning.reset();
    }
    if (!message.tool_calls.empty() && !assistant) {
      say(fmt::format("tool calls of a {} message, dropped", role_name(message.role)));
      message.tool_calls.clear();
    }
    if (!message.content && message.tool_calls.empty()) {
      say("content is null, read as the empty text");
      message.content = "";
    }
    if (drops_calls && message.content && !message.tool_calls.empty()) {
      if (message.content->empty()) {
        say(
            fmt::format("empty content beside tool calls, read as null because the {} template "
                        "drops calls beside content",
                        name));
        message.content.reset();
      } else {
        say(fmt::format("the {} template drops tool calls beside content", name));
      }
    }
    if (assistant && !user && kind == ChatTemplate::kV31) {
      say("an assistant message before any user message gets no marker");
    }
  }
  return said;
}

}  // namespace ds
