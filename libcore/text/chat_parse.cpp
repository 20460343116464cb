#include "libcore/text/chat_parse.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/text/chat_marks.h"

namespace ds {
namespace {

using namespace marks;

constexpr std::size_t kNone = std::string_view::npos;
constexpr std::string_view kMarkBegin = "<｜";
constexpr std::array kToolMarks = {kCallsBegin,   kCallsEnd,   kCallBegin,   kCallEnd,
                                   kOutputsBegin, kOutputsEnd, kOutputBegin, kOutputEnd};
// What ends the words of a turn, besides the end-of-sentence.
constexpr std::array kTurnMarks = {kUser,         kAssistant,   kCallsBegin, kCallBegin,
                                   kOutputsBegin, kOutputBegin, kOutputsEnd};

// The templates with control tokens.
class Parser {
 public:
  Parser(std::string_view text, const ParseOptions& options) : text_(text), options_(options) {}

  ParsedChat conversation() {
    consume(options_.bos);
    const std::string_view system = words();
    if (!system.empty()) {
      if (at_eos()) fail("an answer without its marker, no message begins");
      add(Role::kSystem).content = std::string(system);
    }
    turns();
    return std::move(chat_);
  }

  ParsedChat fragment(bool after_prompt) {
    if (after_prompt) answer(false);
    turns();
    return std::move(chat_);
  }

 private:
  [[noreturn]] void fail(const std::string& what) const {
    throw Error(ExitCode::kBadInput, fmt::format("byte {}: {}", at_ + 1, what));
  }
  bool ahead(std::string_view mark) const {
    return !mark.empty() && text_.substr(at_).starts_with(mark);
  }
  bool at_eos() const { return ahead(options_.eos); }
  bool consume(std::string_view mark) {
    if (!ahead(mark)) return false;
    at_ += mark.size();
    return true;
  }
  Message& add(Role role) {
    Message& message = chat_.messages.emplace_back();
    message.role = role;
    return message;
  }

  // The text up to the next mark of a turn.
  std::string_view words() {
    const std::size_t begin = at_;
    const std::size_t eos = options_.eos.empty() ? kNone : text_.find(options_.eos, begin);
    std::size_t end = std::min(eos, text_.size());
    for (std::size_t at = text_.find(kMarkBegin, begin); at < end;
         at = text_.find(kMarkBegin, at + 1)) {
      const std::string_view rest = text_.substr(at);
      const bool mark = std::any_of(kTurnMarks.begin(), kTurnMarks.end(),
                                    [rest](std::string_view m) { return rest.starts_with(m); });
      if (mark) end = at;
    }
    at_ = end;
    return text_.substr(begin, end - begin);
  }

  void turns() {
    while (at_ < text_.size()) {
      if (consume(kUser)) {
        add(Role::kUser).content = std::string(words());
        if (at_eos()) fail("an end-of-sentence in a user's turn");
      } else if (consume(kAssistant)) {
        answer(true);
      } else if (ahead(kOutputsBegin) || ahead(kOutputBegin)) {
        results();
      } else if (!consume(kOutputsEnd)) {
        answer(false);
      }
    }
  }

  // An assistant's turn. `marked`: its marker stands before it, as in a prompt.
  void answer(bool marked) {
    const bool think_form =
        marked && (options_.kind == ChatTemplate::kV31 || options_.kind == ChatTemplate::kR1);
    Message message;
    message.role = Role::kAssistant;
    bool thinking = false;
    if (think_form && !consume(kThinkEnd)) {
      thinking = consume(kThink);
      if (thinking) read_reasoning(message);
    }
    const std::string_view text = words();
    const bool calls = ahead(kCallsBegin) || ahead(kCallBegin);
    if (calls) {
      if (!text.empty()) message.content = std::string(text);
      read_calls(message);
    } else {
      message.content = std::string(text);
    }
    const bool whole = consume(options_.eos);
    if (marked && at_ == text_.size() && !whole && text.empty() && !calls && !message.reasoning) {
      chat_.prompt_at_end = true;
      if (think_form) chat_.thinking = thinking;
      return;
    }
    if (!marked && text.empty() && !calls) fail("a mark that belongs to no turn");
    if (thinking && !message.reasoning) message.prefix = true;
    const bool open_call = calls && chat_.v3_calls;  // V3 ends a single call without a mark
    if (!whole && !open_call) chat_.cut_answer = true;
    chat_.messages.push_back(std::move(message));
  }

  // Behind <think>: up to </think> when that comes before the turn ends.
  void read_reasoning(Message& message) {
    const std::size_t begin = at_;
    const std::size_t end = text_.find(kThinkEnd, begin);
    words();
    const std::size_t turn = at_;
    at_ = begin;
    if (end == kNone || end > turn) return;
    std::string_view reasoning = text_.substr(begin, end - begin);
    at_ = end + kThinkEnd.size();
    if (options_.kind == ChatTemplate::kR1) {
      if (reasoning.starts_with('\n')) reasoning.remove_prefix(1);
      if (reasoning.ends_with('\n')) reasoning.remove_suffix(1);
      for (int i = 0; i < 2 && ahead("\n"); ++i) ++at_;
    }
    message.reasoning = std::string(reasoning);
  }

  void read_calls(Message& message) {
    consume(kCallsBegin);
    while (true) {
      const std::size_t before = at_;
      while (ahead("\n")) ++at_;
      if (!consume(kCallBegin)) {
        if (!consume(kCallsEnd)) at_ = before;
        return;
      }
      const std::size_t end = text_.find(kCallEnd, at_);
      if (end == kNone) fail("a tool call without its end");
      message.tool_calls.push_back(read_call(text_.substr(at_, end - at_)));
      at_ = end + kCallEnd.size();
    }
  }

  ToolCall read_call(std::string_view body) {
    const std::size_t separator = body.find(kSeparator);
    if (separator == kNone) fail("a tool call without its separator");
    const std::string_view kind = body.substr(0, separator);
    std::string_view rest = body.substr(separator + kSeparator.size());
    constexpr std::string_view kFence = "\n```json\n";
    const std::size_t fence = rest.find(kFence);
    if (kind != "function" || fence == kNone) return {std::string(kind), std::string(rest)};
    chat_.v3_calls = true;
    const std::string_view name = rest.substr(0, fence);
    rest.remove_prefix(fence + kFence.size());
    const std::size_t end = rest.rfind("\n```");
    if (end != kNone) rest = rest.substr(0, end);
    return {std::string(name), std::string(rest)};
  }

  void results() {
    if (consume(kOutputsBegin)) chat_.v3_calls = true;
    while (true) {
      const std::size_t before = at_;
      while (ahead("\n")) ++at_;
      if (!consume(kOutputBegin)) {
        // V3 continues a second turn of calls with a line break.
        if (!ahead(kCallBegin) && !ahead(kOutputsEnd)) at_ = before;
        consume(kOutputsEnd);
        return;
      }
      const std::size_t end = text_.find(kOutputEnd, at_);
      if (end == kNone) fail("a tool result without its end");
      add(Role::kTool).content = std::string(text_.substr(at_, end - at_));
      at_ = end + kOutputEnd.size();
    }
  }

  std::string_view text_;
  const ParseOptions& options_;
  ParsedChat chat_;
  std::size_t at_ = 0;
};

// V2 has no control tokens but the end-of-sentence of an answer.
ParsedChat parse_v2(std::string_view text, const ParseOptions& options) {
  constexpr std::string_view kUserMark = "User: ";
  constexpr std::string_view kAnswerMark = "\n\nAssistant:";
  const std::size_t size = text.size();
  const auto fail = [&](const char* what) {
    throw Error(ExitCode::kBadInput, fmt::format("byte {}: {}", size - text.size() + 1, what));
  };
  ParsedChat chat;
  const auto add = [&chat](Role role, std::string_view content) {
    Message& message = chat.messages.emplace_back();
    message.role = role;
    message.content = std::string(content);
  };
  if (text.starts_with(options.bos)) text.remove_prefix(options.bos.size());
  if (!text.starts_with(kUserMark)) {
    const std::size_t end = text.find("\n\nUser: ");
    if (end == kNone) fail("no \"User: \", one is needed");
    add(Role::kSystem, text.substr(0, end));
    text.remove_prefix(end + 2);
  }
  while (!text.empty()) {
    if (!text.starts_with(kUserMark)) fail("a turn that does not begin with \"User: \"");
    text.remove_prefix(kUserMark.size());
    const std::size_t end = text.find(kAnswerMark);
    if (end == kNone) {
      add(Role::kUser, text.ends_with("\n\n") ? text.substr(0, text.size() - 2) : text);
      break;
    }
    add(Role::kUser, text.substr(0, end));
    text.remove_prefix(end + kAnswerMark.size());
    if (text.empty()) {
      chat.prompt_at_end = true;
      break;
    }
    if (text.starts_with(' ')) text.remove_prefix(1);
    const std::size_t eos = options.eos.empty() ? kNone : text.find(options.eos);
    add(Role::kAssistant, text.substr(0, eos));
    chat.cut_answer = eos == kNone;
    text.remove_prefix(eos == kNone ? text.size() : eos + options.eos.size());
  }
  return chat;
}

}  // namespace

ParsedChat parse_chat(std::string_view text, const ParseOptions& options) {
  if (options.kind == ChatTemplate::kV2) return parse_v2(text, options);
  return Parser(text, options).conversation();
}

bool has_tool_marks(std::string_view text) {
  for (std::size_t at = text.find(kMarkBegin); at != kNone; at = text.find(kMarkBegin, at + 1)) {
    const std::string_view rest = text.substr(at);
    if (std::any_of(kToolMarks.begin(), kToolMarks.end(),
                    [rest](std::string_view mark) { return rest.starts_with(mark); })) {
      return true;
    }
  }
  return false;
}

ParsedChat parse_tool_text(std::string_view text, bool after_prompt, const ParseOptions& options) {
  return Parser(text, options).fragment(after_prompt);
}

}  // namespace ds
