#include "libcore/text/chat_template.h"

#include "tests/core/text/text_fixture.h"

using namespace ds;
using namespace ds::test;

namespace {

const std::string kBos = "<｜begin▁of▁sentence｜>";
const std::string kEos = "<｜end▁of▁sentence｜>";

// Messages as the vectors have them; what a Conversation cannot hold (arguments that are no text,
// parts, unknown roles, an empty list of calls) is read as the data reader repairs it.
Conversation conversation_of(const Json& messages) {
  Conversation conversation;
  for (const Json& m : messages) {
    Message message;
    const auto role = m["role"].get<std::string>();
    if (role == "developer") continue;  // no template prints it
    message.role = role == "system"      ? Role::kSystem
                   : role == "assistant" ? Role::kAssistant
                   : role == "tool"      ? Role::kTool
                                         : Role::kUser;
    if (m.contains("content") && m["content"].is_string()) message.content = m["content"];
    if (m.contains("content") && m["content"].is_array()) message.content = m["content"][0]["text"];
    for (const Json& call : m.value("tool_calls", Json::array())) {
      const Json& arguments = call["function"]["arguments"];
      message.tool_calls.push_back({call["function"]["name"], arguments.is_string()
                                                                  ? arguments.get<std::string>()
                                                                  : python_json(arguments, false)});
    }
    message.prefix = m.value("prefix", false);
    conversation.messages.push_back(std::move(message));
  }
  return conversation;
}

void check_vectors(const std::filesystem::path& path, std::size_t& checked) {
  for (const Json& row : read_rows(path)) {
    for (const ChatTemplate kind :
         {ChatTemplate::kV2, ChatTemplate::kV3, ChatTemplate::kR1, ChatTemplate::kV31}) {
      const std::string key(chat_template_name(kind));
      RenderOptions options{.kind = kind};
      options.add_generation_prompt = row["kwargs"].value("add_generation_prompt", false);
      options.thinking = row["kwargs"].value("thinking", false);
      const auto name = row["name"].get<std::string>();
      // The template drops the answer beside an empty list of calls; a Conversation has no such.
      if (name == "tool_calls_empty_list" && kind == ChatTemplate::kV31) continue;
      if (!row.contains(key)) continue;
      const RenderedChat chat = render_chat(conversation_of(row["messages"]), options);
      CHECK_MESSAGE(chat.text == row[key].get<std::string>(), (name + " " + key));
      std::size_t at = 0;
      for (const RenderedSpan& span : chat.assistant) {
        CHECK(span.begin >= at);
        CHECK(span.end > span.begin);
        CHECK(span.end <= chat.text.size());
        CHECK(row["messages"][span.message]["role"] == "assistant");
        at = span.end;
      }
      ++checked;
    }
  }
}

std::string render(const Json& messages, RenderOptions options) {
  return render_chat(conversation_of(messages), options).text;
}

// The text with the assistant's own words in brackets.
std::string marked(const Conversation& conversation, const RenderOptions& options) {
  const RenderedChat chat = render_chat(conversation, options);
  std::string text;
  std::size_t at = 0;
  for (const RenderedSpan& span : chat.assistant) {
    text += chat.text.substr(at, span.begin - at) + "[";
    text += chat.text.substr(span.begin, span.end - span.begin) + "]";
    at = span.end;
  }
  text += chat.text.substr(at);
  for (const auto& [token, letter] : std::vector<std::pair<std::string, std::string>>{
           {kBos, "B"}, {kEos, "E"}, {"<｜User｜>", "U:"}, {"<｜Assistant｜>", "A:"}}) {
    for (std::size_t i = text.find(token); i != std::string::npos; i = text.find(token)) {
      text.replace(i, token.size(), letter);
    }
  }
  return text;
}

const Json kQuestion = {{{"role", "user"}, {"content", "q"}}};

}  // namespace

TEST_CASE("renderings of jinja2: V3.1, V3, and R1 and V2 written after their descriptions") {
  std::size_t checked = 0;
  check_vectors(source_dir() / "tests" / "data" / "chat_vectors.jsonl", checked);
  MESSAGE(checked << " renderings");
  CHECK(checked >= 250);
  if (shared_dir().empty()) {
    MESSAGE("skipped: no ../shared");
    return;
  }
  for (const char* file : {"chat_vectors.jsonl", "chat_vectors_random.jsonl"}) {
    check_vectors(shared_dir() / "goldens" / "text" / file, checked);
  }
}

TEST_CASE("every prefix, byte for byte (FR-064)") {
  const auto prompt = [&](ChatTemplate kind, bool thinking, Json messages = kQuestion) {
    return render(messages, {.kind = kind, .add_generation_prompt = true, .thinking = thinking});
  };
  CHECK(prompt(ChatTemplate::kV2, false) == kBos + "User: q\n\nAssistant:");
  CHECK(prompt(ChatTemplate::kV3, false) == kBos + "<｜User｜>q<｜Assistant｜>");
  CHECK(prompt(ChatTemplate::kV3, true) == kBos + "<｜User｜>q<｜Assistant｜>");
  CHECK(prompt(ChatTemplate::kR1, false) == kBos + "<｜User｜>q<｜Assistant｜><think>\n");
  CHECK(prompt(ChatTemplate::kV31, false) == kBos + "<｜User｜>q<｜Assistant｜></think>");
  CHECK(prompt(ChatTemplate::kV31, true) == kBos + "<｜User｜>q<｜Assistant｜><think>");
  const Json system = {{{"role", "system"}, {"content", "s"}},
                       {{"role", "user"}, {"content", "q"}}};
  CHECK(prompt(ChatTemplate::kV2, false, system) == kBos + "s\n\nUser: q\n\nAssistant:");
  CHECK(prompt(ChatTemplate::kV3, false, system) == kBos + "s<｜User｜>q<｜Assistant｜>");
  CHECK(prompt(ChatTemplate::kR1, false, system) == kBos + "s<｜User｜>q<｜Assistant｜><think>\n");
  CHECK(prompt(ChatTemplate::kV31, false, system) == kBos + "s<｜User｜>q<｜Assistant｜></think>");

  const Json answered = {{{"role", "user"}, {"content", "q"}},
                         {{"role", "assistant"}, {"content", "a"}},
                         {{"role", "user"}, {"content", "r"}}};
  CHECK(prompt(ChatTemplate::kV2, false, answered) ==
        kBos + "User: q\n\nAssistant: a" + kEos + "User: r\n\nAssistant:");
  CHECK(prompt(ChatTemplate::kV3, false, answered) ==
        kBos + "<｜User｜>q<｜Assistant｜>a" + kEos + "<｜User｜>r<｜Assistant｜>");
  CHECK(prompt(ChatTemplate::kR1, false, answered) ==
        kBos + "<｜User｜>q<｜Assistant｜>a" + kEos + "<｜User｜>r<｜Assistant｜><think>\n");
  CHECK(prompt(ChatTemplate::kV31, true, answered) ==
        kBos + "<｜User｜>q<｜Assistant｜></think>a" + kEos + "<｜User｜>r<｜Assistant｜><think>");

  const Json called = {{{"role", "user"}, {"content", "q"}},
                       {{"role", "assistant"},
                        {"content", nullptr},
                        {"tool_calls", {{{"function", {{"name", "f"}, {"arguments", "{}"}}}}}}},
                       {{"role", "tool"}, {"content", "t"}}};
  CHECK(prompt(ChatTemplate::kV3, false, called) ==
        kBos +
            "<｜User｜>q<｜Assistant｜><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<"
            "｜tool▁sep｜>f\n"
            "```json\n{}\n```<｜tool▁call▁end｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>t"
            "<｜tool▁output▁end｜><｜tool▁outputs▁end｜>");
  CHECK(prompt(ChatTemplate::kV31, false, called) ==
        kBos +
            "<｜User｜>q<｜Assistant｜></"
            "think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{}"
            "<｜tool▁call▁end｜><｜tool▁calls▁end｜>" +
            kEos + "<｜tool▁output▁begin｜>t<｜tool▁output▁end｜>");
}

TEST_CASE("the check of the V3.1 model card") {
  const Json messages = {{{"role", "system"}, {"content", "You are a helpful assistant"}},
                         {{"role", "user"}, {"content", "Who are you?"}},
                         {{"role", "assistant"}, {"content", "<think>Hmm</think>I am DeepSeek"}},
                         {{"role", "user"}, {"content", "1+1=?"}}};
  const std::string begin =
      kBos +
      "You are a helpful assistant<｜User｜>Who are you?<｜Assistant｜></think>"
      "I am DeepSeek" +
      kEos + "<｜User｜>1+1=?<｜Assistant｜>";
  CHECK(render(messages, {.add_generation_prompt = true, .thinking = true}) == begin + "<think>");
  CHECK(render(messages, {.add_generation_prompt = true}) == begin + "</think>");
}

TEST_CASE("the assistant's own words") {
  Conversation chat = conversation_of({{{"role", "user"}, {"content", "q"}},
                                       {{"role", "assistant"}, {"content", "a"}},
                                       {{"role", "user"}, {"content", "r"}},
                                       {{"role", "assistant"}, {"content", "R</think>b"}}});
  CHECK(marked(chat, {.kind = ChatTemplate::kV2}) ==
        "BUser: q\n\nAssistant:[ aE]User: r\n\nAssistant:[ R</think>bE]");
  CHECK(marked(chat, {.kind = ChatTemplate::kV3}) == "BU:qA:[aE]U:rA:[R</think>bE]");
  CHECK(marked(chat, {.kind = ChatTemplate::kR1}) == "BU:qA:[aE]U:rA:[bE]");
  CHECK(marked(chat, {.kind = ChatTemplate::kV31}) == "BU:qA:</think>[aE]U:rA:</think>[bE]");
  chat.messages[3].tool_calls = {{"f", "{}"}, {"g", "{}"}};
  CHECK(
      marked(chat, {.kind = ChatTemplate::kV31}) ==
      "BU:qA:</think>[aE]U:rA:</think>[R</think>b<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f"
      "<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}<｜tool▁call▁end｜>"
      "<｜tool▁calls▁end｜>E]");
}

TEST_CASE("the training form keeps the reasoning of the last turn only") {
  Conversation chat = conversation_of({{{"role", "user"}, {"content", "q"}},
                                       {{"role", "assistant"}, {"content", "S</think>a"}},
                                       {{"role", "user"}, {"content", "r"}},
                                       {{"role", "assistant"}, {"content", "b"}}});
  chat.messages[1].reasoning = "S";
  chat.messages[3].reasoning = "R";
  RenderOptions options{.keep_last_reasoning = true};
  CHECK(marked(chat, options) == "BU:qA:</think>[aE]U:rA:<think>[R</think>bE]");
  options.kind = ChatTemplate::kR1;
  CHECK(marked(chat, options) == "BU:qA:[aE]U:rA:<think>\n[R\n</think>\n\nbE]");
  for (const ChatTemplate kind : {ChatTemplate::kV2, ChatTemplate::kV3}) {
    options.kind = kind;
    CHECK(error_of([&] { render_chat(chat, options); }).find("message 4") == 0);
  }
  options.kind = ChatTemplate::kV31;
  options.keep_last_reasoning = false;
  CHECK(marked(chat, options) == "BU:qA:</think>[aE]U:rA:</think>[bE]");
  // From the content, when there is no reasoning of its own.
  options.keep_last_reasoning = true;
  chat.messages[3].reasoning.reset();
  chat.messages[3].content = "<think>R</think>b</think>c";
  CHECK(marked(chat, options) == "BU:qA:</think>[aE]U:rA:<think>[R</think>b</think>cE]");
  options.kind = ChatTemplate::kR1;
  chat.messages[3].content = "<think>\nR\n</think>\n\nb";
  CHECK(marked(chat, options) == "BU:qA:[aE]U:rA:<think>\n[R\n</think>\n\nbE]");
  // Nothing to keep: the plain form.
  chat.messages[3].content = "b";
  options.kind = ChatTemplate::kV31;
  CHECK(marked(chat, options) == "BU:qA:</think>[aE]U:rA:</think>[bE]");
  // After a tool result no prompt gives <think>, so it is the assistant's own.
  chat.messages[2].role = Role::kTool;
  chat.messages[3].reasoning = "R";
  CHECK(marked(chat, options) ==
        "BU:qA:</think>[aE]<｜tool▁output▁begin｜>r<｜tool▁output▁end｜>[<think>R</think>bE]");
}

TEST_CASE("what a template has no form for is an error that names the message") {
  Conversation chat = conversation_of(
      {{{"role", "user"}, {"content", "q"}}, {{"role", "assistant"}, {"content", nullptr}}});
  const auto said = [&](ChatTemplate kind) {
    return error_of([&] { render_chat(chat, {.kind = kind}); });
  };
  CHECK(said(ChatTemplate::kV31).find("message 2: content is null") == 0);
  CHECK(said(ChatTemplate::kV3).empty());
  chat.messages[1].tool_calls = {{"f", "{}"}};
  CHECK(said(ChatTemplate::kV31).empty());
  CHECK(said(ChatTemplate::kV2).find("message 2: there is no form for tool calls") == 0);
  chat.messages[1] = {};
  chat.messages[1].role = Role::kTool;
  chat.messages[1].content = "t";
  CHECK(said(ChatTemplate::kV2).find("message 2: there is no form for tool results") == 0);
  chat.messages[1] = {};
  CHECK(said(ChatTemplate::kV3).find("message 2: content is null") == 0);
  chat.messages.pop_back();
  chat.tools_json = "[]";
  for (const ChatTemplate kind : {ChatTemplate::kV2, ChatTemplate::kV3, ChatTemplate::kR1}) {
    CHECK(said(kind).find("no tools block") != std::string::npos);
  }
}

TEST_CASE("normalise_conversation repairs and says so") {
  Conversation chat = conversation_of({{{"role", "assistant"}, {"content", nullptr}},
                                       {{"role", "user"}, {"content", "q"}},
                                       {{"role", "assistant"}, {"content", ""}}});
  chat.messages[1].reasoning = "R";
  chat.messages[2].tool_calls = {{"f", "{}"}};
  Conversation v3 = chat;
  auto said = normalise_conversation(chat, ChatTemplate::kV31);
  REQUIRE(said.size() == 3);
  CHECK(said[0].find("message 1: content is null") == 0);
  CHECK(said[1].find("message 1: an assistant message before any user") == 0);
  CHECK(said[2].find("message 2: reasoning of a user message") == 0);
  CHECK(chat.messages[0].content == "");
  CHECK_FALSE(chat.messages[1].reasoning);
  CHECK(normalise_conversation(chat, ChatTemplate::kV31).size() == 1);
  said = normalise_conversation(v3, ChatTemplate::kV3);
  REQUIRE(said.size() == 3);
  CHECK(said[2].find("message 3: empty content beside tool calls") == 0);
  CHECK_FALSE(v3.messages[2].content);
  CHECK(render_chat(v3, {.kind = ChatTemplate::kV3}).text.find("tool▁calls▁begin") !=
        std::string::npos);
  v3.messages[2].content = "text";
  CHECK(normalise_conversation(v3, ChatTemplate::kR1).back().find("drops tool calls") !=
        std::string::npos);
}
