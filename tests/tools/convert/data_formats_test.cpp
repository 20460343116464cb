// deepseek-convert data: each format of the input, each format of the output.
#include "tests/tools/convert/data_fixture.h"

namespace ds::test {

namespace {

const std::string kBos = "<｜begin▁of▁sentence｜>";
const std::string kEos = "<｜end▁of▁sentence｜>";

// A conversation in the words of each format.
const std::string kMessages =
    R"({"messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "q1"}, )"
    R"({"role": "assistant", "content": "a1"}, {"role": "user", "content": "q2"}, )"
    R"({"role": "assistant", "content": "a2"}]})";
const std::string kAlpaca = R"({"instruction": "q2", "input": "", "output": "a2", )"
                            R"("system": "s", "history": [["q1", "a1"]]})";
const std::string kShareGpt =
    R"({"conversations": [{"from": "human", "value": "q1"}, {"from": "gpt", "value": "a1"}, )"
    R"({"from": "human", "value": "q2"}, {"from": "gpt", "value": "a2"}], "system": "s"})";
const std::string kText = R"({"text": ")" + kBos + "s<｜User｜>q1<｜Assistant｜></think>a1" + kEos +
                          "<｜User｜>q2<｜Assistant｜></think>a2" + kEos + R"("})";

const std::string kTools =
    R"({"messages": [{"role": "user", "content": "w?"}, {"role": "assistant", "content": null, )"
    R"("tool_calls": [{"type": "function", "function": {"name": "f", "arguments": )"
    R"("{\"a\": 1}"}}]}, {"role": "tool", "content": "r"}, )"
    R"({"role": "assistant", "content": "done"}], "tools": [{"type": "function", "function": )"
    R"({"name": "f", "parameters": {"z": 1, "a": 2}}}]})";

}  // namespace

TEST_CASE("data: one conversation through every pair of formats, byte for byte") {
  const std::map<std::string, std::string> rows = {
      {"messages", kMessages}, {"alpaca", kAlpaca}, {"sharegpt", kShareGpt}, {"text", kText}};
  for (const auto& [from, row] : rows) {
    for (const auto& [to, expected] : rows) {
      CAPTURE(from);
      CAPTURE(to);
      const DataRun named = convert_data(row + "\n", {"--from", from, "--to", to});
      CHECK(named.outcome.exit_code == 0);
      CHECK(named.outcome.out == expected + "\n");
      CHECK(named.rejects.empty());
      const DataRun found = convert_data("[" + row + ",\n" + row + "]", {"--to", to});
      CHECK(found.outcome.out == expected + "\n" + expected + "\n");
      CHECK(has(found.outcome.err, "rows of format " + from + " (detected)"));
    }
  }
}

TEST_CASE("data: tools, calls and observations there and back") {
  CHECK(convert_data(kTools, {"--to", "messages"}).outcome.out == kTools + "\n");
  const std::string sharegpt = convert_data(kTools, {"--to", "sharegpt"}).outcome.out;
  const Json row = Json::parse(sharegpt);
  CHECK(row["conversations"][1] ==
        Json::parse(R"({"from": "function_call", "value": "{\"name\": \"f\", \"arguments\": )"
                    R"({\"a\": 1}}"})"));
  CHECK(row["conversations"][2]["from"] == "observation");
  CHECK(row["tools"].is_string());
  const DataRun back = convert_data(sharegpt, {"--to", "messages"});
  CHECK(back.outcome.out == kTools + "\n");
  const DataRun alpaca = convert_data(kTools, {"--to", "alpaca"});
  CHECK(alpaca.outcome.exit_code == 3);
  CHECK(alpaca.kinds("dropped") == std::map<std::string, int>{{"not_representable", 1}});
}

TEST_CASE("data: arguments as text or as an object give the same bytes") {
  const auto row = [](const std::string& arguments) {
    return R"({"messages": [{"role": "user", "content": [{"type": "text", "text": "w"}, )"
           R"({"type": "text", "text": "?"}]}, {"role": "assistant", "content": "c", )"
           R"("tool_calls": [{"function": {"name": "f", "arguments": )" +
           arguments + "}}]}]}\n";
  };
  const DataRun text = convert_data(row(R"("{\"b\": 1, \"a\": \"é\"}")"), {"--to", "messages"});
  const DataRun object = convert_data(row(R"({"b": 1, "a": "é"})"), {"--to", "messages"});
  CHECK(text.outcome.out == object.outcome.out);
  CHECK(text.rows[0]["messages"][0]["content"] == "w?");
  CHECK(object.kinds("repaired")["joined_parts"] == 1);
  CHECK(has(object.rejects[0]["reason"], "an object, written as JSON text"));
}

TEST_CASE("data: tool history in the words of V3 becomes V3.1's") {
  const std::string call =
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\\n```json\\n{\\\"a\\\": "
      "1}"
      "\\n```<｜tool▁call▁end｜>\\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\\n```json\\n{}\\n``"
      "`"
      "<｜tool▁call▁end｜><｜tool▁calls▁end｜><｜end▁of▁sentence｜>";
  const std::string results =
      "<｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>r1<｜tool▁output▁end｜>\\n"
      "<｜tool▁output▁begin｜>r2<｜tool▁output▁end｜><｜tool▁outputs▁end｜>";
  for (const char* role : {"tool", "user"}) {
    CAPTURE(role);
    const std::string row =
        R"({"messages": [{"role": "user", "content": "w?"}, {"role": "assistant", "content": ")" +
        call + R"("}, {"role": ")" + role + R"(", "content": ")" + results +
        R"("}, {"role": "assistant", "content": "done"}]})";
    const DataRun run = convert_data(row, {"--to", "messages"});
    REQUIRE(run.rows.size() == 1);
    const Json& messages = run.rows[0]["messages"];
    REQUIRE(messages.size() == 5);
    CHECK(messages[1]["content"].is_null());
    CHECK(messages[1]["tool_calls"][0]["function"] ==
          Json::parse(R"({"name": "f", "arguments": "{\"a\": 1}"})"));
    CHECK(messages[1]["tool_calls"][1]["function"]["name"] == "g");
    CHECK(messages[2] == Json::parse(R"({"role": "tool", "content": "r1"})"));
    CHECK(messages[3]["content"] == "r2");
    CHECK(run.kinds("repaired") == std::map<std::string, int>{{"logged_calls", 1}});
    const DataRun text = convert_data(row, {"--to", "text"});
    CHECK(text.rows[0]["text"] ==
          kBos +
              "<｜User｜>w?<｜Assistant｜></think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f"
              "<｜tool▁sep｜>{\"a\": 1}<｜tool▁call▁end｜><｜tool▁call▁begin｜>g<｜tool▁sep｜>{}"
              "<｜tool▁call▁end｜><｜tool▁calls▁end｜>" +
              kEos +
              "<｜tool▁output▁begin｜>r1<｜tool▁output▁end｜><｜tool▁output▁begin｜>r2"
              "<｜tool▁output▁end｜>done" +
              kEos);
  }
  // All of it in one turn, and a turn that breaks off.
  const DataRun one = convert_data(R"({"messages": [{"role": "user", "content": "w?"}, )"
                                   R"({"role": "assistant", "content": "I look.)" +
                                       call + results + R"(done"}]})",
                                   {"--to", "messages"});
  REQUIRE(one.rows.size() == 1);
  CHECK(one.rows[0]["messages"].size() == 5);
  CHECK(one.rows[0]["messages"][1]["content"] == "I look.");
  CHECK(one.rows[0]["messages"][4]["content"] == "done");
  const DataRun broken = convert_data(
      R"({"messages": [{"role": "user", "content": "w?"}, {"role": "assistant", )"
      R"("content": "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f"}]})",
      {"--to", "messages"});
  CHECK(broken.kinds("dropped") == std::map<std::string, int>{{"bad_tool_call", 1}});
}

TEST_CASE("data: V3's own rendering of calls is read and rendered again as V3.1") {
  const DataRun v3 = convert_data(
      R"({"messages": [{"role": "user", "content": "w?"}, {"role": "assistant", )"
      R"("content": null, "tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, )"
      R"({"role": "tool", "content": "r"}, {"role": "assistant", "content": "done"}]})",
      {"--to", "text", "--template", "v3"});
  const DataRun messages = convert_data(v3.outcome.out, {"--to", "messages", "--template", "v3"});
  REQUIRE(messages.rows.size() == 1);
  CHECK(messages.kinds("repaired")["logged_calls"] == 1);
  CHECK(messages.rows[0]["messages"][1]["tool_calls"][0]["function"]["name"] == "f");
  const DataRun text = convert_data(messages.outcome.out, {"--to", "text"});
  CHECK(text.rows[0]["text"] ==
        kBos +
            "<｜User｜>w?<｜Assistant｜></think><｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f"
            "<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>" +
            kEos + "<｜tool▁output▁begin｜>r<｜tool▁output▁end｜>done" + kEos);
}

TEST_CASE("data: pairs of answers in each layout, either side") {
  for (const char* row :
       {R"({"prompt": "q", "chosen": "good", "rejected": "bad"})",
        R"({"instruction": "q", "chosen": "good", "rejected": "bad"})",
        R"({"prompt": [{"role": "user", "content": "q"}], )"
        R"("chosen": [{"role": "assistant", "content": "good"}], )"
        R"("rejected": [{"role": "assistant", "content": "bad"}]})",
        R"({"chosen": [{"role": "user", "content": "q"}, {"role": "assistant", "content": )"
        R"("good"}], "rejected": [{"role": "user", "content": "q"}, )"
        R"({"role": "assistant", "content": "bad"}]})",
        R"({"conversations": [{"from": "human", "value": "q"}], )"
        R"("chosen": {"from": "gpt", "value": "good"}, )"
        R"("rejected": {"from": "gpt", "value": "bad"}})"}) {
    CAPTURE(row);
    for (const std::string side : {"chosen", "rejected"}) {
      const auto rows = clean_data(row, {"--to", "messages", "--pair", side});
      REQUIRE(rows.size() == 1);
      CHECK(rows[0]["messages"].size() == 2);
      CHECK(rows[0]["messages"][0]["content"] == "q");
      CHECK(rows[0]["messages"][1]["content"] == (side == "chosen" ? "good" : "bad"));
    }
  }
  const DataRun missing =
      convert_data(R"({"prompt": "q", "chosen": "good", "rejected": null})", {"--to", "messages"});
  CHECK(missing.kinds("dropped") == std::map<std::string, int>{{"missing_field", 1}});
}

TEST_CASE("data: reasoning, by the template and in the form that is trained") {
  const std::string row = R"({"messages": [{"role": "user", "content": "q"}, )"
                          R"({"role": "assistant", "content": "A", "reasoning_content": "R"}]})";
  const std::string head = kBos + "<｜User｜>q<｜Assistant｜>";
  const DataRun plain = convert_data(row, {"--to", "text"});
  CHECK(plain.rows[0]["text"] == head + "</think>A" + kEos);
  CHECK(plain.kinds("repaired") == std::map<std::string, int>{{"reasoning_left_out", 1}});
  const auto kept = clean_data(row, {"--to", "text", "--reasoning", "keep"});
  CHECK(kept[0]["text"] == head + "<think>R</think>A" + kEos);
  CHECK(clean_data(row, {"--to", "messages"})[0]["messages"][1]["reasoning_content"] == "R");
  CHECK(clean_data(row, {"--to", "alpaca"})[0]["output"] == "<think>R</think>A");
  const std::string nano = nano_folder();
  if (nano.empty()) return;
  const auto decoded = [&](const std::string& reasoning) {
    const DataRun tokens = convert_data(row, {"--to", "tokens", "--tokenizer", nano, "--template",
                                              "v3.1", "--reasoning", reasoning});
    return convert_data(tokens.outcome.out, {"--to", "text", "--tokenizer", nano}).rows[0]["text"];
  };
  CHECK(decoded("auto") == kept[0]["text"]);
  CHECK(decoded("drop") == plain.rows[0]["text"]);
}

TEST_CASE("data: tokens, labels only on what the assistant says; text alone") {
  const std::string nano = nano_folder();
  if (nano.empty()) return;
  const std::vector<std::string> flags = {"--to", "tokens",     "--tokenizer",
                                          nano,   "--template", "v3.1"};
  const auto rows = clean_data(kMessages, flags);
  const Json rendered = clean_data(kMessages, {"--to", "text"})[0];
  const auto whole = clean_data(rendered.dump(), flags);
  CHECK(rows[0]["input_ids"] == whole[0]["input_ids"]);
  CHECK(whole[0]["labels"] == whole[0]["input_ids"]);
  std::string learned;
  for (std::size_t i = 0; i < rows[0]["labels"].size(); ++i) {
    if (rows[0]["labels"][i] == -100) continue;
    CHECK(rows[0]["labels"][i] == rows[0]["input_ids"][i]);
    const Json one = {{"input_ids", {rows[0]["labels"][i]}}};
    learned += clean_data(one.dump(), {"--to", "text", "--tokenizer", nano})[0]["text"];
  }
  CHECK(learned == "a1" + kEos + "a2" + kEos);
  const DataRun none = convert_data(kMessages, {"--to", "tokens"});
  CHECK(none.outcome.exit_code == 2);
  CHECK(has(none.outcome.err, "--tokenizer"));
}

TEST_CASE("data: prompts without an answer, by flag and by row") {
  const std::string row = R"({"messages": [{"role": "user", "content": "q"}])";
  const auto text = [](const std::string& line, const std::vector<std::string>& more) {
    std::vector<std::string> flags = {"--to", "text"};
    flags.insert(flags.end(), more.begin(), more.end());
    return clean_data(line, flags)[0]["text"].get<std::string>();
  };
  const std::string head = kBos + "<｜User｜>q";
  CHECK(text(row + "}", {}) == head);
  CHECK(text(row + "}", {"--add_generation_prompt"}) == head + "<｜Assistant｜></think>");
  CHECK(text(row + "}", {"--add-generation-prompt", "--thinking"}) ==
        head + "<｜Assistant｜><think>");
  CHECK(text(row + R"(, "thinking": true})", {"--add_generation_prompt"}) ==
        head + "<｜Assistant｜><think>");
  CHECK(text(row + R"(, "chat_template_kwargs": {"add_generation_prompt": true}})", {}) ==
        head + "<｜Assistant｜></think>");
  const std::string twice = row + R"(, "enable_thinking": true})" + "\n";
  const DataRun other = convert_data(twice + twice, {"--to", "text", "--add_generation_prompt"});
  CHECK(other.rows[1]["text"] == head + "<｜Assistant｜><think>");
  CHECK(other.kinds("repaired")["enable_thinking"] == 2);
  const std::size_t said = other.outcome.err.find("enable_thinking: read as thinking");
  REQUIRE(said != std::string::npos);
  CHECK(other.outcome.err.find("enable_thinking: read as thinking", said + 1) == std::string::npos);
}

TEST_CASE("data: rows of CSV and of plain text") {
  const auto alpaca =
      clean_data("instruction,input,output\r\n\"a, \"\"b\"\"\",\"two\nlines\",c\r\n\r\nd,,e\r\n",
                 {"--to", "messages"});
  REQUIRE(alpaca.size() == 2);
  CHECK(alpaca[0]["messages"][0]["content"] == "a, \"b\"\ntwo\nlines");
  CHECK(alpaca[1]["messages"][0]["content"] == "d");
  const DataRun bad = convert_data("text,category\na,b,c\n\"d\"x,e\nf,g\n\"h,i\nj,k\n",
                                   {"--from", "banking77", "--to", "alpaca"});
  CHECK(bad.rows.size() == 2);
  CHECK(bad.kinds("dropped") == std::map<std::string, int>{{"invalid_csv", 3}});
  CHECK(bad.rejects[1]["line"] == 3);
  CHECK(bad.rejects[1]["column"] == 4);
  CHECK(bad.rejects[2]["line"] == 5);
  const auto lines = clean_data("one\n\n two \r\n", {"--from", "text", "--to", "text"});
  REQUIRE(lines.size() == 2);
  CHECK(lines[1]["text"] == " two ");
}

TEST_CASE("data: a text that is no rendering is dropped, what follows it is not") {
  const std::string text = R"({"text": "plain"})"
                           "\n" +
                           kText + "\n" + R"({"text": ")" + kBos +
                           R"(<｜User｜>q<｜Assistant｜>"})" + "\n" + R"({"text": ")" + kBos +
                           R"(<｜User｜>q<｜Assistant｜></think>cut"})" + "\n";
  const DataRun run = convert_data(text, {"--to", "messages"});
  CHECK(run.outcome.exit_code == 0);
  REQUIRE(run.rows.size() == 3);
  CHECK(run.kinds("dropped") == std::map<std::string, int>{{"not_rendered", 1}});
  CHECK(run.kinds("repaired") ==
        std::map<std::string, int>{{"prompt_at_end", 1}, {"cut_answer", 1}});
  CHECK(run.rows[0] == Json::parse(kMessages));
}

}  // namespace ds::test
