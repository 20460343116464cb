#include "tools/convert/data_json.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <nlohmann/json.hpp>

#include "libcore/io/json_fast.h"
#include "libcore/text/chat_marks.h"

namespace ds::convert {

namespace {

constexpr std::string_view kRoles[] = {R"({"role": "system")", R"({"role": "user")",
                                       R"({"role": "assistant")", R"({"role": "tool")"};

void append_escaped(std::string& out, std::string_view text) {
  constexpr std::string_view kHex = "0123456789abcdef";
  while (true) {
    const std::size_t plain = json_plain_prefix(text);
    out.append(text, 0, plain);
    if (plain == text.size()) return;
    const auto c = static_cast<unsigned char>(text[plain]);
    text.remove_prefix(plain + 1);
    out += '\\';
    switch (c) {
      case '"':
      case '\\':
        out += static_cast<char>(c);
        break;
      case '\n':
        out += 'n';
        break;
      case '\r':
        out += 'r';
        break;
      case '\t':
        out += 't';
        break;
      case '\b':
        out += 'b';
        break;
      case '\f':
        out += 'f';
        break;
      default:
        out += "u00";
        out += kHex[c >> 4];
        out += kHex[c & 15];
    }
  }
}

void append_member(std::string& out, std::string_view key, std::string_view text) {
  out += '"';
  out += key;
  out += "\": ";
  append_string(out, text);
}

void append_ids(std::string& out, const std::vector<std::int32_t>& ids) {
  const std::size_t begin = out.size();
  out.resize(begin + 2 + ids.size() * 13);
  char* at = out.data() + begin;
  *at++ = '[';
  for (std::size_t i = 0; i < ids.size(); ++i) {
    if (i > 0) {
      *at++ = ',';
      *at++ = ' ';
    }
    at = std::to_chars(at, at + 11, ids[i]).ptr;
  }
  *at++ = ']';
  out.resize(static_cast<std::size_t>(at - out.data()));
}

bool is_masked(const std::vector<std::size_t>& masked, std::size_t i) {
  return std::find(masked.begin(), masked.end(), i) != masked.end();
}

void append_message(std::string& out, const Message& message, bool learned) {
  out += kRoles[static_cast<std::size_t>(message.role)];
  if (message.content) {
    out += R"(, "content": ")";
    append_escaped(out, *message.content);
    out += '"';
  } else {
    out += ", \"content\": null";
  }
  if (message.reasoning) {
    out += ", ";
    append_member(out, "reasoning_content", *message.reasoning);
  }
  for (std::size_t i = 0; i < message.tool_calls.size(); ++i) {
    out += i == 0 ? ", \"tool_calls\": [" : ", ";
    out += "{\"type\": \"function\", \"function\": {";
    append_member(out, "name", message.tool_calls[i].name);
    out += ", ";
    append_member(out, "arguments", message.tool_calls[i].arguments);
    out += "}}";
  }
  if (!message.tool_calls.empty()) out += ']';
  if (message.prefix) out += ", \"prefix\": true";
  if (!learned) out += ", \"loss\": false";
  out += '}';
}

// All system messages, as a template joins them.
std::string system_text(const Conversation& conversation) {
  std::string text;
  bool first = true;
  for (const Message& message : conversation.messages) {
    if (message.role != Role::kSystem) continue;
    if (!first) text += "\n\n";
    text += message.content.value_or("");
    first = false;
  }
  return text;
}

// An answer with its reasoning, in V3.1's form of one text.
std::string answer_text(const Message& message) {
  std::string text = message.content.value_or("");
  if (!message.reasoning) return text;
  return std::string(marks::kThink) + *message.reasoning + std::string(marks::kThinkEnd) + text;
}

// The JSON text of one call or of several.
std::string calls_text(const std::vector<ToolCall>& calls) {
  std::string text = calls.size() == 1 ? "" : "[";
  for (std::size_t i = 0; i < calls.size(); ++i) {
    if (i > 0) text += ", ";
    text += '{';
    append_member(text, "name", calls[i].name);
    text += ", \"arguments\": ";
    const auto value = nlohmann::json::parse(calls[i].arguments, nullptr, false);
    if (value.is_object()) {
      text += calls[i].arguments;
    } else {
      append_string(text, calls[i].arguments);
    }
    text += '}';
  }
  return calls.size() == 1 ? text : text + "]";
}

}  // namespace

void append_string(std::string& out, std::string_view text) {
  out += '"';
  append_escaped(out, text);
  out += '"';
}

void append_text_row(std::string& out, std::string_view text) {
  out += "{\"text\": ";
  append_string(out, text);
  out += '}';
}

void append_token_row(std::string& out, const std::vector<std::int32_t>& ids,
                      const std::vector<std::int32_t>& labels) {
  out += "{\"input_ids\": ";
  append_ids(out, ids);
  out += ", \"labels\": ";
  append_ids(out, labels);
  out += '}';
}

void append_messages_row(std::string& out, const Conversation& conversation,
                         const std::vector<std::size_t>& masked) {
  out += "{\"messages\": [";
  for (std::size_t i = 0; i < conversation.messages.size(); ++i) {
    if (i > 0) out += ", ";
    append_message(out, conversation.messages[i], masked.empty() || !is_masked(masked, i));
  }
  out += ']';
  if (!conversation.tools_json.empty()) out += ", \"tools\": " + conversation.tools_json;
  if (conversation.thinking) {
    out += *conversation.thinking ? ", \"thinking\": true" : ", \"thinking\": false";
  }
  out += '}';
}

bool append_alpaca_row(std::string& out, const Conversation& conversation, RowRemark& problem) {
  const auto refuse = [&problem](std::size_t i, const char* what) {
    const std::string field = fmt::format("message {}", i + 1);
    problem = {"not_representable", field,
               fmt::format("{}: {}, which the alpaca format has no place for", field, what)};
    return false;
  };
  if (!conversation.tools_json.empty()) {
    problem = {"not_representable", "tools", "tools: the alpaca format has no place for tools"};
    return false;
  }
  std::vector<const Message*> turns;
  const std::vector<Message>& messages = conversation.messages;
  for (std::size_t i = 0; i < messages.size(); ++i) {
    if (messages[i].role == Role::kSystem) continue;
    if (messages[i].role == Role::kTool) return refuse(i, "a tool result");
    if (!messages[i].tool_calls.empty()) return refuse(i, "tool calls");
    const Role due = turns.size() % 2 == 0 ? Role::kUser : Role::kAssistant;
    if (messages[i].role != due) return refuse(i, "a turn that does not alternate");
    turns.push_back(&messages[i]);
  }
  if (turns.empty() || turns.size() % 2 != 0) {
    problem = {"not_representable", "", "no answer at the end, the alpaca format needs one"};
    return false;
  }
  const std::size_t last = turns.size() - 2;
  out += '{';
  append_member(out, "instruction", turns[last]->content.value_or(""));
  out += ", \"input\": \"\", ";
  append_member(out, "output", answer_text(*turns[last + 1]));
  const std::string system = system_text(conversation);
  if (!system.empty()) {
    out += ", ";
    append_member(out, "system", system);
  }
  for (std::size_t i = 0; i < last; i += 2) {
    out += i == 0 ? ", \"history\": [[" : ", [";
    append_string(out, turns[i]->content.value_or(""));
    out += ", ";
    append_string(out, answer_text(*turns[i + 1]));
    out += ']';
  }
  out += last > 0 ? "]}" : "}";
  return true;
}

void append_sharegpt_row(std::string& out, const Conversation& conversation,
                         std::vector<RowRemark>& repairs) {
  out += "{\"conversations\": [";
  bool first = true;
  for (std::size_t i = 0; i < conversation.messages.size(); ++i) {
    const Message& message = conversation.messages[i];
    if (message.role == Role::kSystem) continue;
    if (!first) out += ", ";
    first = false;
    out += '{';
    const bool calls = !message.tool_calls.empty();
    constexpr std::string_view kNames[] = {"system", "human", "gpt", "observation"};
    append_member(out, "from",
                  calls ? "function_call" : kNames[static_cast<std::size_t>(message.role)]);
    out += ", ";
    append_member(out, "value", calls ? calls_text(message.tool_calls) : answer_text(message));
    out += '}';
    const auto left_out = [&](const char* kind, const char* what) {
      const std::string field = fmt::format("message {}", i + 1);
      repairs.push_back({kind, field,
                         fmt::format("{}: {} beside tool calls, for which the sharegpt format has "
                                     "no place; left out",
                                     field, what)});
    };
    if (calls && message.content && !message.content->empty()) {
      left_out("content_left_out", "words");
    }
    if (calls && message.reasoning) left_out("reasoning_left_out", "reasoning");
  }
  out += ']';
  const std::string system = system_text(conversation);
  if (!system.empty()) {
    out += ", ";
    append_member(out, "system", system);
  }
  if (!conversation.tools_json.empty()) {
    out += ", ";
    append_member(out, "tools", conversation.tools_json);
  }
  out += '}';
}

}  // namespace ds::convert
