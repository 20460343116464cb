// Tool calls and results that were logged as text.
#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/data/row_fields.h"
#include "libcore/text/chat_marks.h"
#include "libcore/text/chat_parse.h"

namespace ds::rows {
namespace {

// Whether a turn is to be taken apart. A user's text that mentions a mark stays as it is.
bool is_logged(const Message& message) {
  if (!message.content || !message.tool_calls.empty() || message.role == Role::kSystem) {
    return false;
  }
  const std::string_view text = *message.content;
  if (message.role == Role::kAssistant) return has_tool_marks(text);
  const std::size_t begin = text.find_first_not_of(" \t\r\n");
  if (begin == std::string_view::npos) return false;
  const std::string_view words = text.substr(begin);
  return words.starts_with(marks::kOutputsBegin) || words.starts_with(marks::kOutputBegin);
}

}  // namespace

void rewrite_calls(const std::string& field, std::size_t first, ConvertedRow& row,
                   Conversation& conversation) {
  std::vector<Message>& messages = conversation.messages;
  if (std::none_of(messages.begin(), messages.end(), is_logged)) return;
  std::vector<Message> result;
  std::vector<std::size_t> masked;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    Message& message = messages[i];
    const bool mask = std::find(row.masked.begin(), row.masked.end(), i) != row.masked.end();
    const std::size_t begin = result.size();
    if (!is_logged(message)) {
      result.push_back(std::move(message));
    } else {
      const std::string at = fmt::format("{}[{}].content", field, i < first ? i : i - first);
      const bool assistant = message.role == Role::kAssistant;
      std::string_view text = *message.content;
      if (!assistant) text.remove_prefix(text.find_first_not_of(" \t\r\n"));
      ParsedChat parsed;
      try {
        parsed = parse_tool_text(text, assistant, {});
      } catch (const Error& error) {
        drop("bad_tool_call", at, error.what());
      }
      for (Message& part : parsed.messages) {
        for (ToolCall& call : part.tool_calls) {
          const Json arguments = std::move(call.arguments);
          call.arguments = read_arguments(&arguments, at, row);
        }
        result.push_back(std::move(part));
      }
      if (begin < result.size() && message.reasoning) {
        result[begin].reasoning = std::move(message.reasoning);
      }
      row.repairs.push_back(
          {"logged_calls", at,
           fmt::format("{}: tool calls or results written as text{}, rewritten as messages", at,
                       parsed.v3_calls ? " in V3's grammar" : "")});
    }
    for (std::size_t k = begin; mask && k < result.size(); ++k) {
      if (result[k].role == Role::kAssistant) masked.push_back(k);
    }
  }
  messages = std::move(result);
  row.masked = std::move(masked);
}

}  // namespace ds::rows
