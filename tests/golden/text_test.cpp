// Tokens and chat templates against the tokenizers library and jinja2 (../shared/goldens/text).
#include <nlohmann/json.hpp>

#include "libcore/base/hash.h"
#include "libcore/data/formats.h"
#include "libcore/text/chat_template.h"
#include "libcore/text/tokenizer.h"
#include "tests/golden/golden_model.h"

using namespace ds;
using namespace ds::test;

namespace {

std::vector<nlohmann::ordered_json> read_rows(const std::filesystem::path& path) {
  std::ifstream in(path);
  REQUIRE_MESSAGE(in.good(), path.string());
  std::vector<nlohmann::ordered_json> rows;
  std::string line;
  while (std::getline(in, line)) {
    if (!line.empty()) rows.push_back(nlohmann::ordered_json::parse(line));
  }
  return rows;
}

std::string row_text(const nlohmann::ordered_json& row) {
  if (row.contains("text")) return row["text"].get<std::string>();
  const auto hex = row["text_hex"].get<std::string>();
  std::string text;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
  }
  return text;
}

// Messages exactly as given, without the repairs of the data reader.
Conversation conversation_of(const nlohmann::ordered_json& messages) {
  Conversation conversation;
  for (const auto& m : messages) {
    Message message;
    const auto role = m["role"].get<std::string>();
    if (role == "developer") continue;  // the templates do not print it
    message.role = role == "system"      ? Role::kSystem
                   : role == "assistant" ? Role::kAssistant
                   : role == "tool"      ? Role::kTool
                                         : Role::kUser;
    if (m.contains("content") && m["content"].is_string()) message.content = m["content"];
    if (m.contains("tool_calls") && m["tool_calls"].is_array()) {
      for (const auto& call : m["tool_calls"]) {
        message.tool_calls.push_back({call["function"]["name"], call["function"]["arguments"]});
      }
    }
    if (m.contains("prefix") && m["prefix"].is_boolean()) message.prefix = m["prefix"];
    conversation.messages.push_back(std::move(message));
  }
  return conversation;
}

}  // namespace

TEST_CASE("tokenizer vectors of the real DeepSeek-V3 tokenizer") {
  const auto root = goldens();
  if (root.empty()) return;
  const Tokenizer tokenizer = Tokenizer::load(root / ".." / "data" / "deepseek-v3-tokenizer");
  CHECK(tokenizer.vocab_size() == 128815);
  CHECK(tokenizer.bos_id() == 0);
  CHECK(tokenizer.eos_id() == 1);
  std::size_t checked = 0;
  for (const char* file : {"tokenizer_vectors_v3.jsonl", "tokenizer_vectors_random.jsonl"}) {
    for (const auto& row : read_rows(root / "text" / file)) {
      const std::string text = row_text(row);
      const auto wanted = row["ids"].get<std::vector<std::int32_t>>();
      CHECK_MESSAGE(tokenizer.encode(text) == wanted, row.dump(-1, ' ', true));
      CHECK(tokenizer.decode(wanted, false) == text);
      ++checked;
    }
  }
  MESSAGE(checked << " tokenizer vectors");
  CHECK(checked >= 300);
  // llama.cpp's fingerprint: SHA-256 of Python's str() of the ids of its test text, BOS first.
  const auto facts = read_json(root / "text" / "chktxt.json");
  std::string text = facts.is_string() ? facts.get<std::string>() : facts.value("text", "");
  if (text.empty() && facts.is_object()) text = facts.value("chktxt", "");
  REQUIRE_FALSE(text.empty());
  std::string list = "[0";
  for (const std::int32_t id : tokenizer.encode(text)) list += ", " + std::to_string(id);
  CHECK(sha256(list + "]") == "877081d19cf6996e2c4ff0e1236341e9b7bde288f5311a56a937f0afbbb3aeb5");
}

TEST_CASE("chat template vectors") {
  const auto root = goldens();
  if (root.empty()) return;
  std::size_t checked = 0;
  for (const char* file : {"chat_vectors.jsonl", "chat_vectors_random.jsonl"}) {
    for (const auto& row : read_rows(root / "text" / file)) {
      for (const auto& [key, kind] :
           {std::pair{"v3.1", ChatTemplate::kV31}, std::pair{"v3", ChatTemplate::kV3}}) {
        if (!row.contains(key)) continue;  // the template raises
        // The published V3.1 template loses the answer beside an empty list of calls; ours keeps
        // it.
        if (row["name"] == "tool_calls_empty_list" && kind == ChatTemplate::kV31) continue;
        RenderOptions options{.kind = kind};
        options.add_generation_prompt = row["kwargs"].value("add_generation_prompt", false);
        options.thinking = row["kwargs"].value("thinking", false);
        const RenderedChat chat = render_chat(conversation_of(row["messages"]), options);
        CHECK_MESSAGE(chat.text == row[key].get<std::string>(),
                      (row["name"].get<std::string>() + " " + key));
        ++checked;
      }
    }
  }
  MESSAGE(checked << " renderings");
  CHECK(checked >= 80);
}

TEST_CASE("the published template is recognised, Python's JSON is reproduced") {
  const auto root = goldens();
  if (root.empty()) return;
  std::ifstream in(root / "text" / "chat_template_v3.1.jinja");
  const std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  CHECK(detect_chat_template(text) == ChatTemplate::kV31);
}
