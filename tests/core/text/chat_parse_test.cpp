// Rendered conversations read back: what was rendered, and never a crash.
#include "libcore/text/chat_parse.h"

#include <doctest/doctest.h>

#include <random>
#include <string>

#include "libcore/base/error.h"
#include "libcore/text/chat_marks.h"

namespace ds {
namespace {

Message message(Role role, std::string content) {
  Message result;
  result.role = role;
  result.content = std::move(content);
  return result;
}

std::string words(std::mt19937& random) {
  static const char* const kWords[] = {"a",  " b\n",      "é",    "<", "<｜x｜>",
                                       "｜", "```json\n", "中文", "{}"};
  std::string text = "w";
  for (unsigned n = random() % 4; n > 0; --n) text += kWords[random() % std::size(kWords)];
  return text;
}

// Turns as people have them: user, then answers, with calls and results between.
Conversation random_conversation(std::mt19937& random, bool tools) {
  Conversation chat;
  if (random() % 2 == 0) chat.messages.push_back(message(Role::kSystem, words(random)));
  for (unsigned turn = 0; turn <= random() % 3; ++turn) {
    chat.messages.push_back(message(Role::kUser, words(random)));
    while (tools && random() % 3 == 0) {
      Message calls = message(Role::kAssistant, words(random));
      if (random() % 2 == 0) calls.content.reset();
      const unsigned count = 1 + random() % 3;
      for (unsigned i = 0; i < count; ++i) calls.tool_calls.push_back({"f", "{\"a\": 1}"});
      chat.messages.push_back(std::move(calls));
      for (unsigned i = 0; i < count; ++i) {
        chat.messages.push_back(message(Role::kTool, words(random)));
      }
    }
    chat.messages.push_back(message(Role::kAssistant, words(random)));
  }
  return chat;
}

std::string rendered(const Conversation& chat, ChatTemplate kind, bool prompt = false) {
  RenderOptions options;
  options.kind = kind;
  options.add_generation_prompt = prompt;
  return render_chat(chat, options).text;
}

}  // namespace

TEST_CASE("parsed chats: rendering again gives the text, for every template") {
  std::mt19937 random(11);
  for (const ChatTemplate kind :
       {ChatTemplate::kV2, ChatTemplate::kV3, ChatTemplate::kR1, ChatTemplate::kV31}) {
    CAPTURE(chat_template_name(kind));
    for (int i = 0; i < 2000; ++i) {
      const Conversation chat = random_conversation(random, kind == ChatTemplate::kV31);
      const std::string text = rendered(chat, kind);
      CAPTURE(text);
      const ParsedChat parsed = parse_chat(text, {.kind = kind});
      REQUIRE(parsed.messages.size() == chat.messages.size());
      for (std::size_t k = 0; k < chat.messages.size(); ++k) {
        CHECK(parsed.messages[k].role == chat.messages[k].role);
        CHECK(parsed.messages[k].content == chat.messages[k].content);
        CHECK(parsed.messages[k].tool_calls.size() == chat.messages[k].tool_calls.size());
      }
      CHECK_FALSE(parsed.prompt_at_end);
      CHECK_FALSE(parsed.cut_answer);
      Conversation again;
      again.messages = parsed.messages;
      CHECK(rendered(again, kind) == text);
    }
  }
}

TEST_CASE("parsed chats: calls in V3's words, its defects included") {
  std::mt19937 random(12);
  for (int i = 0; i < 2000; ++i) {
    // V3 has no form for words beside calls, and continues the first calls with later ones.
    Conversation chat;
    chat.messages.push_back(message(Role::kUser, words(random)));
    for (unsigned turn = 0; turn <= random() % 2; ++turn) {
      Message calls;
      calls.role = Role::kAssistant;
      const unsigned count = 1 + random() % 3;
      for (unsigned k = 0; k < count; ++k) calls.tool_calls.push_back({"f", "{\"a\": 1}"});
      chat.messages.push_back(calls);
      for (unsigned k = 0; k < count; ++k) {
        chat.messages.push_back(message(Role::kTool, words(random)));
      }
    }
    chat.messages.push_back(message(Role::kAssistant, words(random)));
    const std::string text = rendered(chat, ChatTemplate::kV3);
    CAPTURE(text);
    const ParsedChat parsed = parse_chat(text, {.kind = ChatTemplate::kV3});
    CHECK(parsed.v3_calls);
    std::size_t calls = 0, results = 0;
    for (const Message& part : parsed.messages) {
      for (const ToolCall& call : part.tool_calls) {
        CHECK(call.name == "f");
        CHECK(call.arguments == "{\"a\": 1}");
        ++calls;
      }
      results += part.role == Role::kTool ? 1 : 0;
    }
    CHECK(calls == results);
    CHECK(parsed.messages.back().content == chat.messages.back().content);
  }
}

TEST_CASE("parsed chats: prompts, reasoning, cut answers") {
  Conversation chat;
  chat.messages.push_back(message(Role::kUser, "q"));
  for (const ChatTemplate kind : {ChatTemplate::kV2, ChatTemplate::kV3, ChatTemplate::kV31}) {
    const ParsedChat parsed = parse_chat(rendered(chat, kind, true), {.kind = kind});
    CHECK(parsed.prompt_at_end);
    CHECK(parsed.messages.size() == 1);
  }
  CHECK(parse_chat(rendered(chat, ChatTemplate::kV31, true), {}).thinking == false);
  Message answer = message(Role::kAssistant, "A");
  answer.reasoning = "R";
  chat.messages.push_back(answer);
  for (const ChatTemplate kind : {ChatTemplate::kR1, ChatTemplate::kV31}) {
    RenderOptions options;
    options.kind = kind;
    options.keep_last_reasoning = true;
    std::string text = render_chat(chat, options).text;
    ParsedChat parsed = parse_chat(text, {.kind = kind});
    REQUIRE(parsed.messages.size() == 2);
    CHECK(parsed.messages[1].reasoning == "R");
    CHECK(parsed.messages[1].content == "A");
    text.resize(text.size() - options.eos.size());
    parsed = parse_chat(text, {.kind = kind});
    CHECK(parsed.cut_answer);
    CHECK(parsed.messages[1].content == "A");
  }
}

TEST_CASE("parsed chats: any pieces in any order end, in messages or in a sentence") {
  using namespace marks;
  const std::string_view pieces[] = {kUser,
                                     kAssistant,
                                     kThink,
                                     kThinkEnd,
                                     kCallsBegin,
                                     kCallsEnd,
                                     kCallBegin,
                                     kCallEnd,
                                     kSeparator,
                                     kOutputsBegin,
                                     kOutputsEnd,
                                     kOutputBegin,
                                     kOutputEnd,
                                     "a",
                                     "\n",
                                     "function",
                                     "\n```json\n",
                                     "\n```",
                                     "User: ",
                                     "\n\nAssistant:",
                                     "<｜begin▁of▁sentence｜>",
                                     "<｜end▁of▁sentence｜>"};
  std::mt19937 random(13);
  std::size_t read = 0, refused = 0;
  for (int i = 0; i < 100000; ++i) {
    std::string text;
    for (unsigned n = random() % 12; n > 0; --n) text += pieces[random() % std::size(pieces)];
    const auto kind = static_cast<ChatTemplate>(random() % 4);
    try {
      const ParsedChat parsed = parse_chat(text, {.kind = kind});
      std::size_t bytes = 0;
      for (const Message& part : parsed.messages) bytes += part.content.value_or("").size();
      CHECK(bytes <= text.size());
      ++read;
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kBadInput);
      CHECK(std::string(error.what()).starts_with("byte "));
      ++refused;
    }
    try {
      parse_tool_text(text, random() % 2 == 0, {});
    } catch (const Error& error) {
      CHECK(error.code() == ExitCode::kBadInput);
    }
  }
  CHECK(read > 1000);
  CHECK(refused > 1000);
}

}  // namespace ds
