#include "libcore/check/template_probes.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/text/jinja.h"

namespace ds::check {
namespace {

using Json = nlohmann::ordered_json;

constexpr const char* kTools =
    R"([{"type":"function","function":{"name":"get_weather","description":"The weather of a place.",)"
    R"("parameters":{"type":"object","properties":{"city":{"type":"string"}},"required":["city"]}}}])";

// Published templates need some ten thousand steps.
constexpr JinjaLimits kLimits{.steps = 200'000, .bytes = std::size_t{8} << 20};

struct Probe {
  std::string name;
  Conversation conversation;
  bool prompt = false;
  std::optional<bool> thinking;
};

Message said(Role role, std::string text) { return {.role = role, .content = std::move(text)}; }
Message system_text(std::string text) { return said(Role::kSystem, std::move(text)); }
Message user(std::string text) { return said(Role::kUser, std::move(text)); }
Message answer(std::string text) { return said(Role::kAssistant, std::move(text)); }
Message result(std::string text) { return said(Role::kTool, std::move(text)); }
Message calls(std::optional<std::string> text, std::vector<ToolCall> list) {
  return {.role = Role::kAssistant, .content = std::move(text), .tool_calls = std::move(list)};
}
Message prefix(std::string text) {
  Message message = answer(std::move(text));
  message.prefix = true;
  return message;
}
Message reasoned(std::string reasoning, std::string text) {
  Message message = answer(std::move(text));
  message.reasoning = std::move(reasoning);
  return message;
}

// The plain ones first: the first difference is the one that is reported.
std::vector<Probe> probes() {
  const ToolCall paris{"get_weather", R"({"city": "Paris"})"};
  const ToolCall rome{"get_weather", R"({"city": "Rom", "unit": "\u00b0C"})"};
  const std::vector<Message> asked{user("What is 1 + 1?")};
  const std::vector<Message> turns{system_text("Be brief."), user("Hi"),  answer("Hello!"),
                                   user("1 + 1?"),           answer("2"), user("And 2 + 2?")};
  const std::vector<Message> history{user("1 + 1?"), answer("<think>One and one.</think>2"),
                                     user("2 + 2?")};
  std::vector<Probe> list;
  const auto add = [&](const char* name, std::vector<Message> messages, bool prompt,
                       std::optional<bool> thinking = std::nullopt) {
    list.push_back({name, {.messages = std::move(messages)}, prompt, thinking});
  };
  add("a question, with the prompt", asked, true);
  add("a question, without the prompt", asked, false);
  add("a question, thinking on", asked, true, true);
  add("a question, thinking off", asked, true, false);
  add("an answered question", {user("Hi"), answer("Hello!")}, false);
  add("system text and question", {system_text("Be brief."), user("Hi")}, true);
  add("several turns", turns, true);
  add("several turns, thinking on", turns, true, true);
  add("white space, line ends, braces",
      {system_text("  Be\n brief. \n"), user("\n {{ x }} {% y %}\t"), answer(" a\n\nb \n")}, false);
  add("letters beyond ASCII", {user("你好，世界 😀"), answer("Äpfel"), user("é")}, true);
  add("reasoning inside an earlier answer", history, true);
  add("reasoning inside an earlier answer, thinking on", history, true, true);
  add("reasoning inside the last answer", {history[0], history[1]}, false);
  add("reasoning beside an answer", {user("1 + 1?"), reasoned("One and one.", "2"), user("2 + 2?")},
      true);
  add("a prefix, thinking on", {user("1 + 1?"), prefix("It is")}, false, true);
  add("a prefix, thinking off", {user("1 + 1?"), prefix("It is")}, false, false);
  add("system texts in two places",
      {system_text("Be brief."), user("Hi"), system_text("Be kind."), answer("Hello!")}, false);
  add("one tool call", {user("Weather?"), calls(std::nullopt, {paris})}, false);
  add("one tool call with a result",
      {user("Weather?"), calls(std::nullopt, {paris}), result("21 degrees")}, true);
  add("two tool calls with results, answer and question",
      {user("Weather?"), calls(std::nullopt, {paris, rome}), result("21"), result("25"),
       answer("21 and 25."), user("Thanks")},
      true);
  add("three tool calls", {user("Weather?"), calls(std::nullopt, {paris, rome, paris})}, false);
  add("tool calls beside text", {user("Weather?"), calls("I look.", {paris, rome}), result("21")},
      true);
  add("tool calls in two turns",
      {user("Weather?"), calls(std::nullopt, {paris}), result("21"), answer("21."), user("Rome?"),
       calls(std::nullopt, {rome}), result("25"), answer("25.")},
      false);
  Probe tools{"tools given to the template", {.messages = turns}, true, std::nullopt};
  tools.conversation.tools_json = kTools;
  list.push_back(std::move(tools));
  return list;
}

Json message_json(const Message& message) {
  constexpr const char* kRoles[] = {"system", "user", "assistant", "tool"};
  Json json{{"role", kRoles[static_cast<std::size_t>(message.role)]},
            {"content", message.content ? Json(*message.content) : Json()}};
  if (message.reasoning) json["reasoning_content"] = *message.reasoning;
  if (message.prefix) json["prefix"] = true;
  if (message.role == Role::kTool) json["tool_call_id"] = "call_0";
  if (message.tool_calls.empty()) return json;
  Json calls = Json::array();
  for (const ToolCall& call : message.tool_calls) {
    calls.push_back({{"id", "call_" + std::to_string(calls.size())},
                     {"type", "function"},
                     {"function", {{"name", call.name}, {"arguments", call.arguments}}}});
  }
  json["tool_calls"] = std::move(calls);
  return json;
}

Json context_of(const Probe& probe, const RenderOptions& options) {
  Json messages = Json::array();
  for (const Message& message : probe.conversation.messages) {
    messages.push_back(message_json(message));
  }
  Json context{{"messages", std::move(messages)},
               {"add_generation_prompt", probe.prompt},
               {"bos_token", options.bos},
               {"eos_token", options.eos},
               {"pad_token", options.eos}};
  if (probe.thinking) context["thinking"] = *probe.thinking;
  if (!probe.conversation.tools_json.empty()) {
    context["tools"] = Json::parse(probe.conversation.tools_json);
  }
  return context;
}

// What the native renderer writes; empty when the template's kind has no form for it.
std::optional<std::string> native(const Conversation& conversation, const RenderOptions& options) {
  try {
    return render_chat(conversation, options).text;
  } catch (const Error& error) {
    if (error.code() != ExitCode::kBadInput) throw;
    return std::nullopt;
  }
}

// Some of `text` around a byte, whole characters.
std::string around(std::string_view text, std::size_t at) {
  constexpr std::size_t kBefore = 24;
  constexpr std::size_t kAfter = 48;
  const auto inside = [&](std::size_t i) {
    return i < text.size() && (static_cast<unsigned char>(text[i]) & 0xc0u) == 0x80u;
  };
  std::size_t begin = at > kBefore ? at - kBefore : 0;
  std::size_t end = std::min(text.size(), at + kAfter);
  while (begin > 0 && inside(begin)) --begin;
  while (inside(end)) ++end;
  return std::string(text.substr(begin, end - begin));
}

void note_difference(TemplateVerdict& verdict, std::string_view got, std::string_view wanted) {
  const auto [left, right] = std::mismatch(got.begin(), got.end(), wanted.begin(), wanted.end());
  auto at = static_cast<std::size_t>(left - got.begin());
  // The first byte of the character.
  while (at > 0 && at < wanted.size() &&
         (static_cast<unsigned char>(wanted[at]) & 0xc0u) == 0x80u) {
    --at;
  }
  verdict.kind = TemplateVerdict::Kind::kDiffers;
  verdict.offset = at;
  verdict.found = around(got, at);
  verdict.expected = around(wanted, at);
}

}  // namespace

TemplateVerdict judge_chat_template(std::string_view text, ChatTemplate kind) {
  TemplateVerdict verdict;
  try {
    const JinjaTemplate jinja(text);
    for (const Probe& probe : probes()) {
      RenderOptions options{.kind = kind, .add_generation_prompt = probe.prompt};
      options.thinking = probe.thinking.value_or(false);
      Conversation without = probe.conversation;
      without.tools_json.clear();
      const auto wanted = native(without, options);
      const auto with_tools = native(probe.conversation, options);
      if (!wanted || !with_tools) continue;
      ++verdict.probes;
      const bool first = verdict.kind == TemplateVerdict::Kind::kSame;
      try {
        const std::string got = jinja.render(context_of(probe, options), kLimits);
        if (got == *wanted || got == *with_tools) continue;
        if (first) note_difference(verdict, got, *with_tools);
      } catch (const JinjaError& error) {
        if (error.problem() != JinjaProblem::kRaised) throw;
        if (first) {
          verdict.kind = TemplateVerdict::Kind::kFails;
          verdict.line = error.line();
          verdict.what = error.what();
        }
      }
      if (first) {
        verdict.probe = probe.name;
      } else {
        ++verdict.others;
      }
    }
  } catch (const JinjaError& error) {
    TemplateVerdict unjudged;
    unjudged.line = error.line();
    unjudged.what = error.what();
    if (error.problem() == JinjaProblem::kSyntax) {
      unjudged.kind = TemplateVerdict::Kind::kSyntax;
    } else {
      unjudged.kind = TemplateVerdict::Kind::kUnknown;
      const bool limit = error.problem() == JinjaProblem::kLimit;
      unjudged.what = (limit ? "needs " : "uses ") + unjudged.what;
    }
    return unjudged;
  }
  return verdict;
}

}  // namespace ds::check
