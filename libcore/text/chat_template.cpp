#include "libcore/text/chat_template.h"

#include <fmt/format.h>

#include <map>
#include <nlohmann/json.hpp>

#include "libcore/base/error.h"
#include "libcore/base/hash.h"

namespace ds {

namespace {

constexpr std::string_view kUser = "<｜User｜>";
constexpr std::string_view kAssistant = "<｜Assistant｜>";
constexpr std::string_view kThink = "<think>";
constexpr std::string_view kThinkEnd = "</think>";
constexpr std::string_view kCallsBegin = "<｜tool▁calls▁begin｜>";
constexpr std::string_view kCallsEnd = "<｜tool▁calls▁end｜>";
constexpr std::string_view kCallBegin = "<｜tool▁call▁begin｜>";
constexpr std::string_view kCallEnd = "<｜tool▁call▁end｜>";
constexpr std::string_view kSep = "<｜tool▁sep｜>";
constexpr std::string_view kOutputsBegin = "<｜tool▁outputs▁begin｜>";
constexpr std::string_view kOutputsEnd = "<｜tool▁outputs▁end｜>";
constexpr std::string_view kOutputBegin = "<｜tool▁output▁begin｜>";
constexpr std::string_view kOutputEnd = "<｜tool▁output▁end｜>";

// The published V3.1 template (reference/formats.md section 13).
constexpr std::string_view kV31Digest =
    "45690185067ea25c073bff2d3e425a45ee2564d2bbf6cdf7d885e139d460b8e0";

std::string after_first(const std::string& text, std::string_view mark) {
  const std::size_t at = text.find(mark);
  return at == std::string::npos ? text : text.substr(at + mark.size());
}

std::string after_last(const std::string& text, std::string_view mark) {
  const std::size_t at = text.rfind(mark);
  return at == std::string::npos ? text : text.substr(at + mark.size());
}

// The tools block of the V3.1 model card, appended to the system text (reference/text.md section
// 5).
std::string tools_block(const std::string& tools_json) {
  const auto tools = nlohmann::ordered_json::parse(tools_json, nullptr, false);
  if (!tools.is_array()) throw Error(ExitCode::kBadInput, "tools are not a JSON list");
  std::string block = "## Tools\nYou have access to the following tools:\n";
  for (const auto& tool : tools) {
    const auto& function = tool.contains("function") ? tool["function"] : tool;
    if (!function.is_object() || !function.contains("name") || !function["name"].is_string()) {
      throw Error(ExitCode::kBadInput, "a tool has no name");
    }
    const std::string description =
        function.contains("description") && function["description"].is_string()
            ? function["description"].get<std::string>()
            : "";
    const auto parameters =
        function.contains("parameters") ? function["parameters"] : nlohmann::ordered_json::object();
    block += fmt::format("\n### {}\nDescription: {}\n\nParameters: {}\n",
                         function["name"].get<std::string>(), description,
                         python_json(parameters, true));
  }
  block += fmt::format(
      "\nIMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
      "{}{}tool_call_name{}tool_call_arguments{}{{{{additional_tool_calls}}}}{}\n\n"
      "Where:\n"
      "- `tool_call_name` must be an exact match to one of the available tools\n"
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
      "Schema\n"
      "- For multiple tool calls, chain them directly without separators or spaces",
      kCallsBegin, kCallBegin, kSep, kCallEnd, kCallsEnd);
  return block;
}

// One conversation being rendered; the flags are the templates' own.
class Renderer {
 public:
  Renderer(const Conversation& conversation, const RenderOptions& options)
      : conversation_(conversation), options_(options) {
    for (std::size_t i = 0; i < conversation.messages.size(); ++i) {
      if (conversation.messages[i].role == Role::kAssistant) last_assistant_ = i;
    }
  }

  RenderedChat run() {
    add(options_.bos);
    add(system_text());
    for (std::size_t i = 0; i < conversation_.messages.size(); ++i) message(i);
    finish();
    return std::move(chat_);
  }

 private:
  void add(std::string_view text) { chat_.text += text; }
  bool v2() const { return options_.kind == ChatTemplate::kV2; }
  bool v31() const { return options_.kind == ChatTemplate::kV31; }

  std::string system_text() const {
    std::string text;
    bool first = true;
    for (const Message& message : conversation_.messages) {
      if (message.role != Role::kSystem) continue;
      text += (first ? "" : "\n\n") + content_of(message);
      first = false;
    }
    if (!conversation_.tools_json.empty()) {
      if (v2()) throw Error(ExitCode::kBadInput, "the V2 chat template has no tools");
      text += (text.empty() ? "" : "\n\n") + tools_block(conversation_.tools_json);
    }
    if (v2() && !text.empty()) text += "\n\n";
    return text;
  }

  static std::string content_of(const Message& message) { return message.content.value_or(""); }

  // The assistant's own words of message i; what the loss is taken on.
  void add_own(std::size_t i, const std::string& text) {
    const std::size_t begin = chat_.text.size();
    add(text);
    if (!chat_.assistant.empty() && chat_.assistant.back().message == i) {
      chat_.assistant.back().end = chat_.text.size();
    } else {
      chat_.assistant.push_back({begin, chat_.text.size(), i});
    }
  }

  void message(std::size_t i) {
    const Message& m = conversation_.messages[i];
    switch (m.role) {
      case Role::kSystem:
        return;
      case Role::kUser:
        is_tool_ = false;
        if (v31()) in_calls_ = false;
        last_user_ = true;
        add(v2() ? "User: " : kUser);
        add(content_of(m));
        if (v2()) add("\n\n");
        return;
      case Role::kTool:
        return tool(m, i);
      case Role::kAssistant:
        if (v2()) {
          add("Assistant:");
          add_own(i, " " + content_of(m) + options_.eos);
        } else if (v31()) {
          assistant_v31(m, i);
        } else {
          assistant_v3(m, i);
        }
        last_user_ = false;
    }
  }

  void tool(const Message& m, std::size_t i) {
    if (v2()) {
      throw Error(ExitCode::kBadInput,
                  fmt::format("message {}: the V2 chat template has no tool results", i));
    }
    last_user_ = false;
    is_tool_ = true;
    if (!v31()) {
      add(outputs_begun_ ? "\n" : kOutputsBegin);
      outputs_begun_ = true;
    }
    add(kOutputBegin);
    add(content_of(m));
    add(kOutputEnd);
  }

  // Reasoning and answer of the turn that is trained with its reasoning; false for every other
  // turn.
  bool split_reasoning(const Message& m, std::size_t i, std::string& reasoning,
                       std::string& answer) const {
    if (!options_.keep_last_reasoning || i != last_assistant_) return false;
    const std::string content = content_of(m);
    const std::size_t end = content.find(kThinkEnd);
    if (m.reasoning && !m.reasoning->empty()) {
      reasoning = *m.reasoning;
      answer = content;
      return true;
    }
    if (end == std::string::npos) return false;
    reasoning = content.substr(0, end);
    if (reasoning.rfind(kThink, 0) == 0) reasoning.erase(0, kThink.size());
    answer = content.substr(end + kThinkEnd.size());
    return true;
  }

  void assistant_v31(const Message& m, std::size_t i) {
    if (!m.tool_calls.empty()) {
      if (last_user_) add(std::string(kAssistant) + std::string(kThinkEnd));
      is_tool_ = false;
      std::string text = content_of(m) + std::string(kCallsBegin);
      for (const ToolCall& call : m.tool_calls) {
        text += std::string(kCallBegin) + call.name + std::string(kSep) + call.arguments +
                std::string(kCallEnd);
      }
      add_own(i, text + std::string(kCallsEnd) + options_.eos);
      return;
    }
    std::string reasoning;
    std::string answer;
    const bool thought = last_user_ && split_reasoning(m, i, reasoning, answer);
    if (last_user_) {
      add(kAssistant);
      add(thought || (m.prefix && options_.thinking) ? kThink : kThinkEnd);
    }
    if (thought) {
      add_own(i, reasoning + std::string(kThinkEnd) + answer + options_.eos);
    } else if (is_tool_) {
      add_own(i, content_of(m) + options_.eos);
      is_tool_ = false;
    } else {
      add_own(i, after_first(content_of(m), kThinkEnd) + options_.eos);
    }
  }

  // V3 and R1. Their templates drop the calls of a message with content, and close the calls only
  // from the second one on; both are reproduced (reference/text.md section 4).
  void assistant_v3(const Message& m, std::size_t i) {
    if (!m.content) {
      is_tool_ = false;
      for (const ToolCall& call : m.tool_calls) {
        std::string text = in_calls_ ? "\n" : std::string(kCallsBegin);
        text += std::string(kCallBegin) + "function" + std::string(kSep) + call.name +
                "\n```json\n" + call.arguments + "\n```" + std::string(kCallEnd);
        if (in_calls_) {
          text += std::string(kCallsEnd) + options_.eos;
        } else {
          add(kAssistant);
        }
        in_calls_ = true;
        add_own(i, text);
      }
      return;
    }
    if (is_tool_) {
      add(kOutputsEnd);
      add_own(i, *m.content + options_.eos);
      is_tool_ = false;
      return;
    }
    add(kAssistant);
    std::string reasoning;
    std::string answer;
    const bool r1 = options_.kind == ChatTemplate::kR1;
    if (r1 && split_reasoning(m, i, reasoning, answer)) {
      const auto stripped = [](std::string text) {
        while (!text.empty() && text.front() == '\n') text.erase(text.begin());
        while (!text.empty() && text.back() == '\n') text.pop_back();
        return text;
      };
      add(std::string(kThink) + "\n");
      add_own(i, stripped(reasoning) + "\n" + std::string(kThinkEnd) + "\n\n" + stripped(answer) +
                     options_.eos);
      return;
    }
    add_own(i, (r1 ? after_last(*m.content, kThinkEnd) : *m.content) + options_.eos);
  }

  void finish() {
    if (v2()) {
      if (options_.add_generation_prompt) add("Assistant:");
      return;
    }
    if (v31()) {
      if (options_.add_generation_prompt && last_user_ && !is_tool_) {
        add(kAssistant);
        add(options_.thinking ? kThink : kThinkEnd);
      }
      return;
    }
    if (is_tool_) add(kOutputsEnd);
    if (options_.add_generation_prompt && !is_tool_) {
      add(kAssistant);
      if (options_.kind == ChatTemplate::kR1) add(std::string(kThink) + "\n");
    }
  }

  const Conversation& conversation_;
  const RenderOptions& options_;
  RenderedChat chat_;
  std::size_t last_assistant_ = 0;
  bool is_tool_ = false;
  bool last_user_ = false;
  bool in_calls_ = false;       // V3, R1: is_first
  bool outputs_begun_ = false;  // V3, R1: not is_output_first
};

void append_escaped(std::string& out, const std::string& text, bool ensure_ascii) {
  out += '"';
  for (std::size_t i = 0; i < text.size(); ++i) {
    const auto c = static_cast<unsigned char>(text[i]);
    switch (c) {
      case '"':
        out += "\\\"";
        continue;
      case '\\':
        out += "\\\\";
        continue;
      case '\n':
        out += "\\n";
        continue;
      case '\r':
        out += "\\r";
        continue;
      case '\t':
        out += "\\t";
        continue;
      case '\b':
        out += "\\b";
        continue;
      case '\f':
        out += "\\f";
        continue;
      default:
        break;
    }
    if (c < 0x20) {
      out += fmt::format("\\u{:04x}", static_cast<unsigned>(c));
    } else if (c < 0x80 || !ensure_ascii) {
      out += text[i];
    } else {
      const std::size_t length = c >= 0xf0 ? 4 : c >= 0xe0 ? 3 : 2;
      std::uint32_t code = c & (0xffu >> (length + 1));
      for (std::size_t k = 1; k < length && i + 1 < text.size(); ++k) {
        code = code << 6 | (static_cast<unsigned char>(text[++i]) & 0x3fu);
      }
      if (code >= 0x10000) {
        code -= 0x10000;
        out += fmt::format("\\u{:04x}\\u{:04x}", 0xd800u + (code >> 10), 0xdc00u + (code & 0x3ffu));
      } else {
        out += fmt::format("\\u{:04x}", code);
      }
    }
  }
  out += '"';
}

void append_json(std::string& out, const nlohmann::ordered_json& value, bool ensure_ascii) {
  if (value.is_object()) {
    out += '{';
    bool first = true;
    for (const auto& [key, child] : value.items()) {
      if (!first) out += ", ";
      first = false;
      append_escaped(out, key, ensure_ascii);
      out += ": ";
      append_json(out, child, ensure_ascii);
    }
    out += '}';
  } else if (value.is_array()) {
    out += '[';
    for (std::size_t i = 0; i < value.size(); ++i) {
      if (i > 0) out += ", ";
      append_json(out, value[i], ensure_ascii);
    }
    out += ']';
  } else if (value.is_string()) {
    append_escaped(out, value.get_ref<const std::string&>(), ensure_ascii);
  } else {
    out += value.dump();
  }
}

}  // namespace

std::string_view chat_template_name(ChatTemplate kind) {
  switch (kind) {
    case ChatTemplate::kV2:
      return "v2";
    case ChatTemplate::kV3:
      return "v3";
    case ChatTemplate::kR1:
      return "r1";
    case ChatTemplate::kV31:
      return "v3.1";
  }
  return "";
}

std::optional<ChatTemplate> parse_chat_template(std::string_view name) {
  for (const ChatTemplate kind :
       {ChatTemplate::kV2, ChatTemplate::kV3, ChatTemplate::kR1, ChatTemplate::kV31}) {
    if (name == chat_template_name(kind)) return kind;
  }
  return std::nullopt;
}

std::optional<ChatTemplate> detect_chat_template(std::string_view text) {
  if (sha256(text) == kV31Digest) return ChatTemplate::kV31;
  const auto has = [text](std::string_view mark) {
    return text.find(mark) != std::string_view::npos;
  };
  if (has(kUser) && has("is_last_user") && has(kThinkEnd)) return ChatTemplate::kV31;
  if (has(kUser) && has(kOutputsBegin)) {
    return has(kThinkEnd) ? ChatTemplate::kR1 : ChatTemplate::kV3;
  }
  if (has("User: ") && has("Assistant:")) return ChatTemplate::kV2;
  return std::nullopt;
}

RenderedChat render_chat(const Conversation& conversation, const RenderOptions& options) {
  return Renderer(conversation, options).run();
}

std::string python_json(const nlohmann::ordered_json& value, bool ensure_ascii) {
  std::string out;
  append_json(out, value, ensure_ascii);
  return out;
}

}  // namespace ds
