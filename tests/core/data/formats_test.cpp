// Each format, each problem kind, each repair kind of convert_row.
#include "libcore/data/formats.h"

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "libcore/data/example.h"

namespace ds {
namespace {

using Json = nlohmann::ordered_json;

ConvertedRow convert(const std::string& text) {
  const Json row = Json::parse(text);
  const auto format = detect_format(row);
  REQUIRE_MESSAGE(format.has_value(), text);
  return convert_row(row, *format);
}

Conversation conversation(const std::string& text) {
  const ConvertedRow row = convert(text);
  REQUIRE_MESSAGE(row.content.has_value(), row.problem.reason);
  return std::get<Conversation>(*row.content);
}

// "system: a | user: b | assistant: c [name(arguments)]".
std::string show(const Conversation& chat) {
  static const char* const kNames[] = {"system", "user", "assistant", "tool"};
  std::string text;
  for (const Message& message : chat.messages) {
    if (!text.empty()) text += " | ";
    text += kNames[static_cast<int>(message.role)];
    text += ": " + message.content.value_or("(null)");
    if (message.reasoning) text += " {" + *message.reasoning + "}";
    for (const ToolCall& call : message.tool_calls) {
      text += " [" + call.name + "(" + call.arguments + ")]";
    }
  }
  return text;
}

std::vector<std::string> repair_kinds(const ConvertedRow& row) {
  std::vector<std::string> kinds;
  for (const RowRemark& repair : row.repairs) kinds.push_back(repair.kind);
  return kinds;
}

// A messages row around the given list.
std::string messages(const std::string& list, const std::string& more = "") {
  return R"({"messages": [)" + list + "]" + more + "}";
}
const std::string kUser = R"({"role": "user", "content": "q"})";
const std::string kAnswer = R"({"role": "assistant", "content": "a"})";

}  // namespace

TEST_CASE("formats are told by their keys") {
  const auto name = [](const char* text) -> std::string {
    const auto format = detect_format(Json::parse(text));
    return format ? std::string(data_format_name(*format)) : "none";
  };
  CHECK(name(R"({"messages": 5})") == "messages");
  CHECK(name(R"([{"role": "user", "content": "q"}])") == "messages");
  CHECK(name(R"({"conversations": []})") == "sharegpt");
  CHECK(name(R"({"instruction": "i", "output": "o"})") == "alpaca");
  CHECK(name(R"({"input": "i", "output": "o"})") == "alpaca");
  CHECK(name(R"({"prompt": "p", "completion": "c"})") == "prompt_completion");
  CHECK(name(R"({"text": "t"})") == "text");
  CHECK(name(R"({"input_ids": [1], "text": "t"})") == "tokens");
  CHECK(name(R"({"prompt": "p", "chosen": "c", "rejected": "r"})") == "none");
  CHECK(name(R"({"question": "p"})") == "none");
  CHECK(name(R"("text")") == "none");
  CHECK(describe_keys(Json::parse(R"({"b": 1, "a": 2})")) == R"(the keys "b", "a")");
  CHECK(describe_keys(Json::parse("5")) == "the number 5");
}

TEST_CASE("messages") {
  const Conversation chat = conversation(messages(
      R"({"role": "system", "content": "s"},)" + kUser +
          R"(,{"role": "assistant", "content": null, "tool_calls": [{"id": "1", "type": "function",)"
          R"( "function": {"name": "f", "arguments": "{\"x\":1}"}}]},)"
          R"({"role": "tool", "tool_call_id": "1", "content": "7"},)"
          R"({"role": "assistant", "content": "a", "reasoning_content": "r", "prefix": true})",
      R"(, "tools": [{"type": "function", "function": {"name": "f", "parameters": {"b": 1, "a": "é"}}}])"));
  CHECK(show(chat) ==
        "system: s | user: q | assistant: (null) [f({\"x\":1})] | tool: 7 | assistant: a {r}");
  // The order of keys and non-ASCII characters stay.
  CHECK(chat.tools_json ==
        "[{\"type\": \"function\", \"function\": {\"name\": \"f\", "
        "\"parameters\": {\"b\": 1, \"a\": \"é\"}}}]");
  CHECK(chat.messages[4].prefix);
  CHECK_FALSE(chat.messages[2].prefix);
  CHECK_FALSE(chat.thinking.has_value());
  // A list of messages without an object around it.
  CHECK(show(conversation("[" + kUser + "," + kAnswer + "]")) == "user: q | assistant: a");
  // A system message in the middle does not disturb the turns.
  CHECK(show(conversation(messages(kUser + R"(,{"role": "system", "content": "s"},)" + kAnswer))) ==
        "user: q | system: s | assistant: a");
  // Several results of one message's calls.
  CHECK(convert(
            messages(kUser +
                     R"(,{"role": "assistant", "tool_calls": [{"name": "f", "arguments": "{}"}]},)"
                     R"({"role": "tool", "content": "1"},{"role": "tool", "content": "2"},)" +
                     kAnswer))
            .repairs.empty());
}

TEST_CASE("alpaca with input, system and history is one conversation") {
  CHECK(show(conversation(R"({"instruction": "i", "output": "o"})")) == "user: i | assistant: o");
  CHECK(
      show(conversation(R"({"instruction": "i", "input": "", "output": "o", "history": null})")) ==
      "user: i | assistant: o");
  CHECK(show(conversation(R"({"instruction": "i", "input": "x", "output": "o", "system": "s",)"
                          R"( "history": [["q1", "a1"], ["q2", "a2"]]})")) ==
        "system: s | user: q1 | assistant: a1 | user: q2 | assistant: a2 | user: i\nx | assistant: "
        "o");
  CHECK(show(conversation(R"({"instruction": "", "input": "x", "output": "o"})")) ==
        "user: x | assistant: o");
}

TEST_CASE("sharegpt with system, tools, calls and observations") {
  const Conversation chat = conversation(
      R"({"conversations": [{"from": "human", "value": "q"},)"
      R"({"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": {\"b\": 1, \"a\": 2}}"},)"
      R"({"from": "observation", "value": "7"},{"from": "gpt", "value": "a"}],)"
      R"("system": "s", "tools": "[{\"name\": \"f\", \"parameters\": {}}]"})");
  CHECK(
      show(chat) ==
      "system: s | user: q | assistant: (null) [f({\"b\": 1, \"a\": 2})] | tool: 7 | assistant: a");
  CHECK(chat.tools_json ==
        R"([{"type": "function", "function": {"name": "f", "parameters": {}}}])");
  // Two calls in one turn; empty tools.
  CHECK(
      show(conversation(
          R"({"conversations": [{"from": "human", "value": "q"},{"from": "function_call",)"
          R"( "value": "[{\"name\": \"f\", \"arguments\": {}}, {\"name\": \"g\", \"arguments\": {}}]"}],)"
          R"("tools": ""})")) == "user: q | assistant: (null) [f({})] [g({})]");
}

TEST_CASE("prompt_completion, text and tokens") {
  const ConvertedRow pair = convert(R"({"prompt": "p", "completion": "c"})");
  CHECK(std::get<PromptCompletionRow>(*pair.content).prompt == "p");
  CHECK(std::get<PromptCompletionRow>(*pair.content).completion == "c");
  // Lists of messages: only the completion is learned.
  const ConvertedRow chat = convert(R"({"prompt": [)" + kUser + "," + kAnswer + "," + kUser +
                                    R"(], "completion": [)" + kAnswer + "]}");
  CHECK(show(std::get<Conversation>(*chat.content)) ==
        "user: q | assistant: a | user: q | assistant: a");
  CHECK(chat.masked == std::vector<std::size_t>{1});
  CHECK(std::get<TextRow>(*convert(R"({"text": " t "})").content).text == " t ");
  const ConvertedRow tokens =
      convert(R"({"input_ids": [0, 5, 2147483647], "labels": [-100, 5, -100]})");
  CHECK(std::get<TokenRow>(*tokens.content).ids == std::vector<std::int32_t>{0, 5, 2147483647});
  CHECK(std::get<TokenRow>(*tokens.content).labels == std::vector<std::int32_t>{-100, 5, -100});
  CHECK(std::get<TokenRow>(*convert(R"({"input_ids": [3, 4]})").content).labels ==
        std::vector<std::int32_t>{3, 4});
}

TEST_CASE("settings of a row") {
  const auto thinking = [](const std::string& more) {
    return conversation(messages(kUser + "," + kAnswer, more)).thinking;
  };
  CHECK(thinking(R"(, "thinking": true)") == true);
  CHECK(thinking(R"(, "thinking": false)") == false);
  CHECK(thinking(R"(, "thinking": null)") == std::nullopt);
  CHECK(thinking(R"(, "thinking": {"type": "enabled"})") == true);
  CHECK(thinking(R"(, "enable_thinking": true)") == true);
  CHECK(thinking(R"(, "chat_template_kwargs": {"thinking": true})") == true);
  CHECK(thinking(R"(, "chat_template_kwargs": {"enable_thinking": false})") == false);
  // The row's own setting comes before the nested one.
  CHECK(thinking(R"(, "thinking": false, "chat_template_kwargs": {"thinking": true})") == false);
  CHECK(repair_kinds(convert(messages(kUser + "," + kAnswer, R"(, "enable_thinking": true)"))) ==
        std::vector<std::string>{"enable_thinking"});
  CHECK(conversation(messages(kUser + "," + kAnswer,
                              R"(, "chat_template_kwargs": {"tools": [{"name": "f"}]})"))
            .tools_json == R"([{"type": "function", "function": {"name": "f"}}])");
}

TEST_CASE("answers that are not learned are marked") {
  const ConvertedRow row =
      convert(messages(kUser + R"(,{"role": "assistant", "content": "a", "loss": false},)" + kUser +
                       R"(,{"role": "assistant", "content": "b", "loss": true},)" + kUser +
                       R"(,{"role": "assistant", "content": "c", "weight": 0})"));
  CHECK(row.masked == std::vector<std::size_t>{1, 5});
}

TEST_CASE("every row problem names its field, what was found and what is needed") {
  struct Case {
    std::string row, kind, field, reason;
  };
  const Case cases[] = {
      {R"({"instruction": "i"})", "missing_field", "output", "output: missing, a text is needed"},
      {R"({"instruction": "i", "output": null})", "null_content", "output",
       "output: null, a text is needed"},
      {R"({"instruction": "i", "output": ["o"]})", "bad_type", "output",
       "output: a list of 1, a text is needed"},
      {R"({"instruction": 5, "output": "o"})", "bad_type", "instruction",
       "instruction: the number 5, a text is needed"},
      {R"({"instruction": "i", "output": " \n"})", "empty_answer", "output", ""},
      {R"({"instruction": "i", "output": "o", "system": {}})", "bad_type", "system", ""},
      {R"({"instruction": "i", "output": "o", "history": "h"})", "bad_type", "history", ""},
      {R"({"instruction": "i", "output": "o", "history": [["q"]]})", "bad_type", "history[0]",
       "history[0]: a list of 1, a pair [question, answer] is needed"},
      {R"({"instruction": "i", "output": "o", "history": [["q", 5]]})", "bad_type", "history[0][1]",
       ""},
      {R"({"instruction": "i", "output": "o", "history": [["q", ""]]})", "empty_answer",
       "history[0][1]", ""},
      {R"({"messages": "m"})", "bad_type", "messages", ""},
      {R"({"messages": []})", "empty_row", "messages", ""},
      {"[]", "empty_row", "row", ""},
      {messages("5"), "bad_type", "messages[0]", ""},
      {messages(R"({"content": "q"})"), "missing_field", "messages[0].role", ""},
      {messages(R"({"role": 5, "content": "q"})"), "bad_type", "messages[0].role", ""},
      {messages(R"({"role": "narrator", "content": "q"})"), "unknown_role", "messages[0].role",
       "messages[0].role: \"narrator\", system, user, assistant or tool is needed"},
      {messages(R"({"role": "user"})"), "missing_field", "messages[0].content", ""},
      {messages(kUser + R"(,{"role": "assistant", "content": null})"), "null_content",
       "messages[1].content", ""},
      {messages(kUser + R"(,{"role": "assistant", "content": ""})"), "empty_answer", "messages[1]",
       ""},
      {messages(kUser + R"(,{"role": "assistant", "content": "", "tool_calls": []})"),
       "empty_answer", "messages[1]", ""},
      {messages(kUser + R"(,{"role": "assistant", "content": 5})"), "bad_type",
       "messages[1].content", ""},
      {messages(kUser + R"(,{"role": "assistant", "content": "a", "reasoning_content": []})"),
       "bad_type", "messages[1].reasoning_content", ""},
      {messages(kUser + R"(,{"role": "assistant", "content": "a", "loss": "no"})"), "bad_type",
       "messages[1].loss", ""},
      {messages(R"({"role": "user", "content": [{"type": "image_url"}]},)" + kAnswer),
       "content_not_text", "messages[0].content[0].type", ""},
      {messages(R"({"role": "user", "content": [{"type": "text"}]},)" + kAnswer), "missing_field",
       "messages[0].content[0].text", ""},
      {messages(R"({"role": "user", "content": [7]},)" + kAnswer), "bad_type",
       "messages[0].content[0]", ""},
      // FR-067: two users in a row, assistant first.
      {messages(kUser + "," + kUser + "," + kAnswer), "roles_not_alternating", "messages[1]",
       "messages[1]: user after user, assistant is needed"},
      {messages(kAnswer), "roles_not_alternating", "messages[0]",
       "messages[0]: assistant as the first message, user or a tool result is needed"},
      {messages(kUser + "," + kAnswer + "," + kAnswer), "roles_not_alternating", "messages[2]",
       "messages[2]: assistant after assistant, user or a tool result is needed"},
      {messages(R"({"role": "tool", "content": "t"},)" + kAnswer), "roles_not_alternating",
       "messages[0]", ""},
      {messages(kUser + R"(,{"role": "tool", "content": "t"},)" + kAnswer), "roles_not_alternating",
       "messages[1]", ""},
      {messages(kUser + R"(,{"role": "system", "content": "s"},)" + kUser + "," + kAnswer),
       "roles_not_alternating", "messages[2]", ""},
      {messages(kUser), "no_answer", "messages", ""},
      {messages(R"({"role": "system", "content": "s"})"), "no_answer", "messages", ""},
      {messages(kUser + R"(,{"role": "assistant", "tool_calls": {}})"), "bad_tool_call",
       "messages[1].tool_calls", ""},
      {messages(kUser + R"(,{"role": "assistant", "tool_calls": ["f"]})"), "bad_tool_call",
       "messages[1].tool_calls[0]", ""},
      {messages(kUser + R"(,{"role": "assistant", "tool_calls": [{"function": {}}]})"),
       "bad_tool_call", "messages[1].tool_calls[0].function.name", ""},
      {messages(kUser + R"(,{"role": "assistant", "tool_calls": [{"name": "f", "arguments": 5}]})"),
       "bad_tool_call", "messages[1].tool_calls[0].arguments", ""},
      {messages(R"({"role": "user", "content": "q", "tool_calls": [{"name": "f"}]},)" + kAnswer),
       "bad_tool_call", "messages[0].tool_calls", ""},
      {messages(kUser + "," + kAnswer, R"(, "tools": "[")"), "bad_tools", "tools", ""},
      {messages(kUser + "," + kAnswer, R"(, "tools": {})"), "bad_tools", "tools", ""},
      {messages(kUser + "," + kAnswer, R"(, "tools": [{"type": "function"}])"), "bad_tools",
       "tools[0]", ""},
      {messages(kUser + "," + kAnswer, R"(, "thinking": "yes")"), "bad_type", "thinking", ""},
      {messages(kUser + "," + kAnswer, R"(, "chat_template_kwargs": 1)"), "bad_type",
       "chat_template_kwargs", ""},
      {R"({"conversations": [{"from": "human", "value": "q"}, {"from": "bot", "value": "a"}]})",
       "unknown_role", "conversations[1].from", ""},
      {R"({"conversations": [{"from": "human", "value": "q"},)"
       R"({"from": "function_call", "value": "call f"}]})",
       "bad_tool_call", "conversations[1].value", ""},
      {R"({"conversations": [{"from": "gpt", "value": "a"}], "system": "s"})",
       "roles_not_alternating", "conversations[0]", ""},
      {R"({"prompt": "p", "completion": ""})", "empty_answer", "completion", ""},
      {R"({"prompt": ["p"], "completion": "c"})", "bad_type", "prompt", ""},
      {R"({"text": ""})", "empty_row", "text", ""},
      {R"({"text": 5})", "bad_type", "text", ""},
      {R"({"input_ids": "1 2"})", "bad_type", "input_ids", ""},
      {R"({"input_ids": []})", "empty_row", "input_ids", ""},
      {R"({"input_ids": [1, 2.5]})", "bad_type", "input_ids[1]", ""},
      {R"({"input_ids": [1, -100]})", "bad_id", "input_ids[1]", ""},
      {R"({"input_ids": [1, 2147483648]})", "bad_id", "input_ids[1]", ""},
      {R"({"input_ids": [18446744073709551615]})", "bad_id", "input_ids[0]", ""},
      {R"({"input_ids": [1, 2], "labels": [1]})", "length_mismatch", "labels",
       "labels: 1 labels for 2 input_ids, as many are needed"},
      {R"({"input_ids": [1, 2], "labels": [-100, -1]})", "bad_id", "labels[1]", ""},
      {R"({"input_ids": [1, 2], "labels": {}})", "bad_type", "labels", ""},
  };
  for (const Case& c : cases) {
    CAPTURE(c.row);
    const ConvertedRow row = convert(c.row);
    CHECK_FALSE(row.content.has_value());
    CHECK(row.problem.kind == c.kind);
    CHECK(row.problem.field == c.field);
    CHECK(row.problem.reason.starts_with(c.field + ": "));
    if (!c.reason.empty()) CHECK(row.problem.reason == c.reason);
    CHECK(row.repairs.empty());
  }
}

TEST_CASE("every repair is named, and what it gives") {
  struct Case {
    std::string row, kind, shown;
  };
  const std::string call = R"({"role": "assistant", "tool_calls": [{"name": "f", "arguments": )";
  const Case cases[] = {
      {messages(R"({"role": "user", "content": [{"type": "text", "text": "q"}, "r"]},)" + kAnswer),
       "joined_parts", "user: qr | assistant: a"},
      {messages(R"({"role": "developer", "content": "s"},)" + kUser + "," + kAnswer),
       "role_renamed", "system: s | user: q | assistant: a"},
      {messages(R"({"role": "human", "content": "q"},)" + kAnswer), "role_renamed",
       "user: q | assistant: a"},
      {messages(kUser + "," + call + R"("{}"}]},{"role": "function", "content": "t"},)" + kAnswer),
       "role_renamed", "user: q | assistant: (null) [f({})] | tool: t | assistant: a"},
      {messages(kUser + R"(,{"role": "assistant", "content": "a", "tool_calls": []})"),
       "empty_tool_calls", "user: q | assistant: a"},
      {messages(kUser + "," + call + R"({"b": "é", "a": [1, 2]}}]})"), "arguments_object",
       "user: q | assistant: (null) [f({\"b\": \"é\", \"a\": [1, 2]})]"},
      {messages(kUser + "," + call + "null}]}"), "arguments_missing",
       "user: q | assistant: (null) [f({})]"},
      {messages(kUser + "," + call + R"("\"{\\\"a\\\": 1}\""}]})"), "arguments_encoded_twice",
       "user: q | assistant: (null) [f({\"a\": 1})]"},
      {messages(kUser + "," + call + R"("a = 1"}]})"), "arguments_not_json",
       "user: q | assistant: (null) [f(a = 1)]"},
      {messages(kUser + R"(,{"role": "assistant", "content": null,)"
                        R"( "function_call": {"name": "f", "arguments": "{}"}})"),
       "function_call", "user: q | assistant: (null) [f({})]"},
      {messages(kUser + "," + call + R"("{}"}]},{"role": "tool", "content": {"b": 1, "a": 2}},)" +
                kAnswer),
       "content_object",
       "user: q | assistant: (null) [f({})] | tool: {\"b\": 1, \"a\": 2} | assistant: a"},
      {messages(kUser + "," + kAnswer + "," + kUser), "unanswered_turn", "user: q | assistant: a"},
      {messages(kUser + "," + kAnswer + R"(,{"role": "tool", "content": "t"},)" + kAnswer),
       "tool_without_call", "user: q | assistant: a | tool: t | assistant: a"},
      {messages(R"({"role": "user", "content": ""},)" + kAnswer), "empty_prompt",
       "user:  | assistant: a"},
      {R"({"instruction": "", "output": "o"})", "empty_prompt", "user:  | assistant: o"},
  };
  for (const Case& c : cases) {
    CAPTURE(c.row);
    const ConvertedRow row = convert(c.row);
    REQUIRE_MESSAGE(row.content.has_value(), row.problem.reason);
    CHECK(show(std::get<Conversation>(*row.content)) == c.shown);
    CHECK(repair_kinds(row) == std::vector<std::string>{c.kind});
    CHECK(row.repairs[0].reason.starts_with(row.repairs[0].field + ": "));
  }
}

TEST_CASE("FR-062: arguments as an object and as text give equal bytes") {
  const std::string head =
      R"({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": )";
  const auto arguments = [&](const std::string& text) {
    return conversation(messages(kUser + "," + head + text + "}}]}"))
        .messages[1]
        .tool_calls[0]
        .arguments;
  };
  CHECK(arguments(R"({"ort": "Köln", "n": 2})") == R"({"ort": "Köln", "n": 2})");
  CHECK(arguments(R"("{\"ort\": \"Köln\", \"n\": 2}")") == R"({"ort": "Köln", "n": 2})");
}

}  // namespace ds
