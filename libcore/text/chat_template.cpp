#include "libcore/text/chat_template.h"

#include <fmt/format.h>

#include "libcore/base/error.h"
#include "libcore/text/chat_marks.h"
#include "libcore/text/tools_block.h"

namespace ds {
namespace {

using namespace marks;

std::string_view after_first(std::string_view text, std::string_view mark) {
  const std::size_t at = text.find(mark);
  return at == std::string_view::npos ? text : text.substr(at + mark.size());
}

std::string_view after_last(std::string_view text, std::string_view mark) {
  const std::size_t at = text.rfind(mark);
  return at == std::string_view::npos ? text : text.substr(at + mark.size());
}

// One conversation being rendered; the flags are those of the templates.
class Renderer {
 public:
  Renderer(const Conversation& conversation, const RenderOptions& options)
      : messages_(conversation.messages), options_(options) {
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      if (messages_[i].role == Role::kAssistant) last_assistant_ = i;
    }
    add(options.bos);
    if (options.kind == ChatTemplate::kV2) {
      if (!conversation.tools_json.empty()) refuse_tools();
      return;
    }
    std::string system;
    bool first = true;
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      if (messages_[i].role != Role::kSystem) continue;
      if (!first) system += "\n\n";
      system += content(i);
      first = false;
    }
    if (!conversation.tools_json.empty()) {
      if (options.kind != ChatTemplate::kV31) refuse_tools();
      if (!system.empty()) system += "\n\n";
      system += tools_block(conversation.tools_json);
    }
    add(system);
  }

  RenderedChat run() {
    for (std::size_t i = 0; i < messages_.size(); ++i) {
      switch (options_.kind) {
        case ChatTemplate::kV2:
          message_v2(i);
          break;
        case ChatTemplate::kV3:
        case ChatTemplate::kR1:
          message_v3(i);
          break;
        case ChatTemplate::kV31:
          message_v31(i);
      }
    }
    finish();
    return std::move(chat_);
  }

 private:
  struct Thought {
    std::string_view reasoning;
    std::string_view answer;
  };

  [[noreturn]] void refuse_tools() const {
    throw Error(ExitCode::kBadInput,
                fmt::format("the {} template has no tools block, no tools are needed",
                            chat_template_name(options_.kind)),
                "Remove the tools, or use the v3.1 template.");
  }
  [[noreturn]] void refuse(std::size_t i, std::string_view what) const {
    throw Error(ExitCode::kBadInput, fmt::format("message {}: {} (template {})", i + 1, what,
                                                 chat_template_name(options_.kind)));
  }

  const std::string& content(std::size_t i) const {
    if (!messages_[i].content) refuse(i, "content is null, a text is needed");
    return *messages_[i].content;
  }

  void add(std::string_view text) { chat_.text += text; }
  // The assistant's own words of message i.
  void add_own(std::size_t i, std::string_view text) {
    if (text.empty()) return;
    if (chat_.assistant.empty() || chat_.assistant.back().message != i) {
      chat_.assistant.push_back({chat_.text.size(), 0, i});
    }
    add(text);
    chat_.assistant.back().end = chat_.text.size();
  }
  // A marker that a prompt ends with: the assistant's own only when no prompt would give it.
  void add_opening(std::size_t i, std::string_view text, bool prompted) {
    if (prompted) {
      add(text);
    } else {
      add_own(i, text);
    }
  }

  // Reasoning and answer of the turn that is trained with its reasoning; nullopt: another turn.
  std::optional<Thought> thought_of(std::size_t i) const {
    if (!options_.keep_last_reasoning || i != last_assistant_) return std::nullopt;
    const Message& message = messages_[i];
    const std::string_view text = message.content ? std::string_view(*message.content) : "";
    const bool r1 = options_.kind == ChatTemplate::kR1;
    if (!r1 && options_.kind != ChatTemplate::kV31) {
      if (message.reasoning) refuse(i, "there is no form for reasoning");
      return std::nullopt;
    }
    if (message.reasoning) return Thought{*message.reasoning, text};
    const std::size_t end = r1 ? text.rfind(kThinkEnd) : text.find(kThinkEnd);
    if (end == std::string_view::npos) return std::nullopt;
    Thought thought{text.substr(0, end), text.substr(end + kThinkEnd.size())};
    if (thought.reasoning.starts_with(kThink)) thought.reasoning.remove_prefix(kThink.size());
    if (r1) {
      if (thought.reasoning.starts_with('\n')) thought.reasoning.remove_prefix(1);
      if (thought.reasoning.ends_with('\n')) thought.reasoning.remove_suffix(1);
      for (int k = 0; k < 2 && thought.answer.starts_with('\n'); ++k) {
        thought.answer.remove_prefix(1);
      }
    }
    return thought;
  }

  void message_v2(std::size_t i) {
    switch (messages_[i].role) {
      case Role::kSystem:
        add(content(i));
        add("\n\n");
        return;
      case Role::kUser:
        add("User: ");
        add(content(i));
        add("\n\n");
        return;
      case Role::kTool:
        refuse(i, "there is no form for tool results");
      case Role::kAssistant:
        break;
    }
    if (!messages_[i].tool_calls.empty()) refuse(i, "there is no form for tool calls");
    thought_of(i);
    add("Assistant:");
    add_own(i, " ");  // the generation prompt has no space after the colon
    add_own(i, content(i));
    add_own(i, options_.eos);
  }

  // V3 and R1. Of their flags is_first and is_output_first are never set back, so that a second
  // turn with calls continues the first; calls beside content are dropped; calls are closed only
  // from the second one on.
  void message_v3(std::size_t i) {
    const Message& message = messages_[i];
    switch (message.role) {
      case Role::kSystem:
        return;
      case Role::kUser:
        is_tool_ = false;
        add(kUser);
        add(content(i));
        return;
      case Role::kTool:
        is_tool_ = true;
        add(is_output_first_ ? kOutputsBegin : "\n");
        is_output_first_ = false;
        add(kOutputBegin);
        add(content(i));
        add(kOutputEnd);
        return;
      case Role::kAssistant:
        break;
    }
    const std::optional<Thought> thought = thought_of(i);
    if (!message.content) {
      is_tool_ = false;
      for (const ToolCall& call : message.tool_calls) call_v3(i, call, thought);
      return;
    }
    const bool after_tool = is_tool_;
    is_tool_ = false;
    add(after_tool ? kOutputsEnd : kAssistant);
    if (thought) {
      add_thought_v3(i, *thought, !after_tool);
      add_own(i, thought->answer);
    } else if (options_.kind == ChatTemplate::kR1 && !after_tool) {
      add_own(i, after_last(*message.content, kThinkEnd));
    } else {
      add_own(i, *message.content);
    }
    add_own(i, options_.eos);
  }

  void add_thought_v3(std::size_t i, const Thought& thought, bool prompted) {
    add_opening(i, kThink, prompted);
    add_opening(i, "\n", prompted);
    add_own(i, thought.reasoning);
    add_own(i, "\n");
    add_own(i, kThinkEnd);
    add_own(i, "\n\n");
  }

  void call_v3(std::size_t i, const ToolCall& call, const std::optional<Thought>& thought) {
    const bool first = !is_first_;
    is_first_ = true;
    if (first) {
      add(kAssistant);
      if (thought) add_thought_v3(i, *thought, true);
    }
    add_own(i, first ? kCallsBegin : "\n");
    for (const std::string_view part :
         {kCallBegin, std::string_view("function"), kSeparator, std::string_view(call.name),
          std::string_view("\n```json\n"), std::string_view(call.arguments),
          std::string_view("\n```"), kCallEnd}) {
      add_own(i, part);
    }
    if (first) return;
    add_own(i, kCallsEnd);
    add_own(i, options_.eos);
  }

  void message_v31(std::size_t i) {
    const Message& message = messages_[i];
    switch (message.role) {
      case Role::kSystem:
        return;
      case Role::kUser:
        is_tool_ = false;
        is_last_user_ = true;
        add(kUser);
        add(content(i));
        return;
      case Role::kTool:
        is_last_user_ = false;
        is_tool_ = true;
        add(kOutputBegin);
        add(content(i));
        add(kOutputEnd);
        return;
      case Role::kAssistant:
        break;
    }
    const std::optional<Thought> thought = thought_of(i);
    const bool calls = !message.tool_calls.empty();
    if (is_last_user_) add(kAssistant);
    if (thought) {
      add_opening(i, kThink, is_last_user_);
      add_own(i, thought->reasoning);
      add_own(i, kThinkEnd);
      add_own(i, thought->answer);
    } else {
      const bool prefix = message.prefix && options_.thinking && !calls;
      if (is_last_user_) add(prefix ? kThink : kThinkEnd);
      if (calls) {
        if (message.content) add_own(i, *message.content);
      } else {
        add_own(i, is_tool_ ? content(i) : after_first(content(i), kThinkEnd));
      }
    }
    is_last_user_ = false;
    is_tool_ = false;
    if (calls) calls_v31(i);
    add_own(i, options_.eos);
  }

  void calls_v31(std::size_t i) {
    add_own(i, kCallsBegin);
    for (const ToolCall& call : messages_[i].tool_calls) {
      for (const std::string_view part : {kCallBegin, std::string_view(call.name), kSeparator,
                                          std::string_view(call.arguments), kCallEnd}) {
        add_own(i, part);
      }
    }
    add_own(i, kCallsEnd);
  }

  void finish() {
    switch (options_.kind) {
      case ChatTemplate::kV2:
        if (options_.add_generation_prompt) add("Assistant:");
        return;
      case ChatTemplate::kV31:
        if (!options_.add_generation_prompt || !is_last_user_) return;
        add(kAssistant);
        add(options_.thinking ? kThink : kThinkEnd);
        return;
      case ChatTemplate::kV3:
      case ChatTemplate::kR1:
        break;
    }
    if (is_tool_) add(kOutputsEnd);
    if (!options_.add_generation_prompt || is_tool_) return;
    add(kAssistant);
    if (options_.kind == ChatTemplate::kR1) {
      add(kThink);
      add("\n");
    }
  }

  const std::vector<Message>& messages_;
  const RenderOptions& options_;
  RenderedChat chat_;
  std::size_t last_assistant_ = 0;
  bool is_tool_ = false;
  bool is_last_user_ = false;    // V3.1
  bool is_first_ = false;        // V3, R1: a call has been printed
  bool is_output_first_ = true;  // V3, R1: no result has been printed
};

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
      break;
  }
  return "v3.1";
}

std::optional<ChatTemplate> parse_chat_template(std::string_view name) {
  for (const ChatTemplate kind :
       {ChatTemplate::kV2, ChatTemplate::kV3, ChatTemplate::kR1, ChatTemplate::kV31}) {
    if (name == chat_template_name(kind)) return kind;
  }
  return std::nullopt;
}

RenderedChat render_chat(const Conversation& conversation, const RenderOptions& options) {
  return Renderer(conversation, options).run();
}

}  // namespace ds
