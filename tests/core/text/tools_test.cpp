// The tools block, Python's JSON and the recognition of templates.
#include <cmath>

#include "libcore/text/chat_template.h"
#include "libcore/text/tools_block.h"
#include "tests/core/text/text_fixture.h"

using namespace ds;
using namespace ds::test;

TEST_CASE("tools as on the V3.1 model card") {
  const std::string grammar =
      "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>tool_call_name<｜tool▁sep｜>tool_call_arguments"
      "<｜tool▁call▁end｜>{{additional_tool_calls}}<｜tool▁calls▁end｜>\n\n"
      "Where:\n"
      "- `tool_call_name` must be an exact match to one of the available tools\n"
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
      "Schema\n"
      "- For multiple tool calls, chain them directly without separators or spaces";
  const std::string tools =
      R"([{"type":"function","function":{"name":"get","description":"Gets \"it\"","parameters":)"
      R"({"type":"object","properties":{"z":{"type":"string"},"ö":{"maximum":12345678901234567890123}}}}},)"
      R"({"name":"put"}])";
  const std::string block =
      "## Tools\nYou have access to the following tools:\n\n"
      "### get\nDescription: Gets \"it\"\n\n"
      "Parameters: {\"type\": \"object\", \"properties\": {\"z\": {\"type\": \"string\"}, "
      "\"\\u00f6\": {\"maximum\": 12345678901234567890123}}}\n\n"
      "### put\nDescription: \n\nParameters: {}\n\n" +
      grammar;
  CHECK(tools_block(tools) == block);
  Conversation chat;
  chat.tools_json = tools;
  chat.messages.resize(1);
  chat.messages[0].content = "q";
  const std::string bos = "<｜begin▁of▁sentence｜>";
  CHECK(render_chat(chat, {}).text == bos + block + "<｜User｜>q");
  chat.messages.resize(2);
  chat.messages[1].role = Role::kSystem;
  chat.messages[1].content = "Be brief.";
  CHECK(render_chat(chat, {}).text == bos + "Be brief.\n\n" + block + "<｜User｜>q");

  const auto said = [](const std::string& text) { return error_of([&] { tools_block(text); }); };
  CHECK(said("[{\"name\": 5}]").find("tools[0].name is no text") == 0);
  CHECK(said("[{\"name\": \"a\"}, {}]").find("tools[1].name is missing") == 0);
  CHECK(said("{}").find("tools") == 0);
  CHECK(said("[{\"name\": \"a\", \"parameters\": {]}]").find("tools[0]") == 0);
  CHECK(said("[] x").find("after the end") != std::string::npos);
}

TEST_CASE("JSON as Python writes it: the vectors") {
  // From the text, not from a document, because one value is beyond 64 bits.
  const std::string text = read_text(source_dir() / "tests" / "data" / "python_json.json");
  std::size_t checked = 0;
  for (const Json& row : Json::parse(text)) {
    const auto wanted = row["tojson"].get<std::string>();
    if (wanted.size() != 30) CHECK(python_json(row["value"], false) == wanted);
    CHECK(python_json_text(wanted, "v", false) == wanted);
    ++checked;
  }
  CHECK(checked == 18);
  CHECK(python_json_text("123456789012345678901234567890", "v", false) ==
        "123456789012345678901234567890");
}

TEST_CASE("JSON as Python writes it: numbers and escapes") {
  const std::vector<std::pair<std::string, std::string>> values = {
      {"1.0", "1.0"},
      {"1e5", "100000.0"},
      {"1E16", "1e+16"},
      {"123456789012345.678", "123456789012345.67"},
      {"1234567890123456.7", "1234567890123456.8"},
      {"12345678901234567.0", "1.2345678901234568e+16"},
      {"0.0001", "0.0001"},
      {"0.00001", "1e-05"},
      {"0.000123456", "0.000123456"},
      {"1.5e-7", "1.5e-07"},
      {"1e100", "1e+100"},
      {"5e-324", "5e-324"},
      {"-0.0", "-0.0"},
      {"-0", "0"},
      {"-12", "-12"},
      {"1e999", "Infinity"},
      {"-1e999", "-Infinity"},
      {"1e-999", "0.0"},
      {"[1,[2,{\"b\":null,\"a\":false}]]", "[1, [2, {\"b\": null, \"a\": false}]]"},
      {"{}", "{}"},
      {" [ ] ", "[]"},
      {"{\"a\":{}}", "{\"a\": {}}"},
  };
  for (const auto& [text, wanted] : values) CHECK(python_json_text(text, "v", true) == wanted);
  CHECK(python_json(Json(1e16), true) == "1e+16");
  CHECK(python_json(Json(100.0), true) == "100.0");
  CHECK(python_json(Json(NAN), true) == "NaN");
  const Json text = std::string("é漢😀\x7f\x01\"\\/\n\r\t\b\f<");
  CHECK(python_json(text, false) == "\"é漢😀\x7f\\u0001\\\"\\\\/\\n\\r\\t\\b\\f<\"");
  CHECK(python_json(text, true) ==
        "\"\\u00e9\\u6f22\\ud83d\\ude00\\u007f\\u0001\\\"\\\\/\\n\\r\\t\\b\\f<\"");
  CHECK(python_json(Json("\xff"), true) == "\"\\ufffd\"");
  for (const char* bad :
       {"", "nul", "[1 2]", "{\"a\" 1}", "1.", "+1", "01", "[1,]", "\"a", "1 2"}) {
    CHECK_MESSAGE(error_of([&] { python_json_text(bad, "v", true); }).find("v") == 0,
                  std::string(bad));
  }
  CHECK(error_of([&] { python_json_text(std::string(300, '['), "v", true); }).find("nested") !=
        std::string::npos);
}

TEST_CASE("templates are recognised by hash and by their marks") {
  const Json config =
      Json::parse(read_text(source_dir() / "examples" / "nano-v3" / "tokenizer_config.json"));
  const auto published = config["chat_template"].get<std::string>();
  DetectedTemplate found = examine_chat_template(published + "\n");
  CHECK(found.kind == ChatTemplate::kV31);
  CHECK(found.published);
  CHECK(found.notes.empty());

  std::string variant = published;
  variant.replace(variant.rfind("'</think>'"), 10, "'<think></think>'");
  found = examine_chat_template(variant);
  CHECK(found.kind == ChatTemplate::kV31);
  CHECK_FALSE(found.published);
  REQUIRE(found.notes.size() == 1);
  CHECK(found.notes[0].find("known variant") != std::string::npos);
  CHECK(examine_chat_template(published + "x").notes.size() == 1);

  // FR-065: a published file lacks a percent sign.
  found =
      examine_chat_template(published + "{% set tool_json = tool | tojson}{% if a %}{% endif %}");
  REQUIRE(found.notes.size() == 2);
  CHECK(found.notes[0].find("byte " + std::to_string(published.size())) != std::string::npos);

  CHECK(
      detect_chat_template("<｜User｜> <｜Assistant｜><think>\\n {{ c.split('</think>')[-1] }}") ==
      ChatTemplate::kR1);
  CHECK(detect_chat_template("{{'<｜User｜>'}}{{'<｜Assistant｜>'}}") == ChatTemplate::kV3);
  CHECK(detect_chat_template("{{ 'User: ' + c }}{{ 'Assistant:' }}") == ChatTemplate::kV2);
  CHECK_FALSE(detect_chat_template("<|im_start|>user"));
  CHECK_FALSE(detect_chat_template("<｜User｜><｜Assistant｜><｜DSML｜function_calls>"));
  CHECK_FALSE(detect_chat_template(""));
  for (const ChatTemplate kind :
       {ChatTemplate::kV2, ChatTemplate::kV3, ChatTemplate::kR1, ChatTemplate::kV31}) {
    CHECK(parse_chat_template(chat_template_name(kind)) == kind);
  }
  CHECK_FALSE(parse_chat_template("V3"));
  if (shared_dir().empty()) {
    MESSAGE("skipped: no ../shared");
    return;
  }
  const Json v3 = Json::parse(
      read_text(shared_dir() / "data" / "deepseek-v3-tokenizer" / "tokenizer_config.json"));
  found = examine_chat_template(v3["chat_template"].get<std::string>());
  CHECK(found.kind == ChatTemplate::kV3);
  CHECK(found.published);
  CHECK(examine_chat_template(
            read_text(shared_dir() / "goldens" / "text" / "chat_template_v3.1.jinja"))
            .published);
}
