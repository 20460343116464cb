// Rows of every format, field by field.
#include "libcore/check/dataset_check.h"
#include "tests/core/check/mutation.h"

namespace ds::test {
namespace {

using nlohmann::json;
namespace fs = std::filesystem;

// Two rows of each format: the second is spoilt.
const std::vector<std::pair<const char*, std::string>>& sound_rows() {
  static const std::vector<std::pair<const char*, std::string>> kRows{
      {"messages",
       R"({"messages":[{"role":"system","content":"s"},{"role":"user","content":"u"},)"
       R"({"role":"assistant","content":"","tool_calls":[{"type":"function","function":{"name":"f",)"
       R"("arguments":"{\"x\":1}"}}]},{"role":"tool","content":"r"},)"
       R"({"role":"assistant","content":"<think>t</think>a"}],)"
       R"("tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}]})"},
      {"sharegpt",
       R"({"conversations":[{"from":"human","value":"q"},{"from":"gpt","value":"a"}],"system":"s"})"},
      {"alpaca",
       R"({"instruction":"i","input":"x","output":"o","history":[["q","a"]],"system":"s"})"},
      {"pair", R"({"prompt":"p","completion":"c"})"},
      {"text", R"({"text":"one two three"})"},
      {"tokens", R"({"input_ids":[0,5,6,7,1],"labels":[-100,-100,6,7,1]})"},
  };
  return kRows;
}

std::string other_row(const std::string& row) {
  // Another row of the format, so that the file keeps it and no row is written twice.
  json value = json::parse(row);
  for (const char* key : {"text", "completion", "output"}) {
    if (value.contains(key)) value[key] = "another";
  }
  if (value.contains("messages")) value["messages"][1]["content"] = "another";
  if (value.contains("conversations")) value["conversations"][0]["value"] = "another";
  if (value.contains("input_ids")) value["input_ids"][1] = 9;
  return value.dump();
}

}  // namespace

MutationGroup dataset_mutations() {
  static const Tokenizer kTokenizer = Tokenizer::load(source_dir() / "examples" / "nano-v3");
  const auto folder = std::make_shared<SpoiltFolder>([](const fs::path& root) {
    check::Findings findings;
    check::SeenRows seen;
    const check::DatasetCheckOptions options{.tokenizer = &kTokenizer, .vocab_size = 4096};
    check::check_dataset(root / "rows.jsonl", options, seen, findings);
    return findings.sorted();
  });
  MutationGroup group{"dataset", "each field of a row of each format", {}, {}, {}, {}};
  for (const auto& [format, row] : sound_rows()) {
    const std::string first = other_row(row) + "\n";
    write_text(folder->root() / "rows.jsonl", first + row + "\n");
    for (const auto& finding : folder->sound()) group.sound.push_back(finding);
    const auto add = [&, f = std::string(format)](const std::string& path,
                                                  const std::string& change,
                                                  const std::string& text) {
      group.mutations.push_back({f + ": " + path, change, {"rows.jsonl", "", "", 2}, [=] {
                                   return folder->with("rows.jsonl", first + text + "\n");
                                 }});
    };
    const json value = json::parse(row);
    each_json_change(
        value, [](const std::string& path) { return path.starts_with("tools.0."); },
        [&](const std::string& path, const std::string& change, const json& changed) {
          add(path, change, changed.dump());
        });
    each_key_change(value, add);
    add("row", "cut", row.substr(0, row.size() / 2));
    add("row", "no UTF-8", [&] {
      std::string text = row;
      text.insert(text.rfind('"'), "\xff");
      return text;
    }());
    add("row", "list", "[" + row + "]");
    add("row", "text", "\"x\"");
    add("row", "number", "7");
    add("row", "null", "null");
    add("row", "empty object", "{}");
    add("row", "the row before", other_row(row));
    if (std::string(format) != "pair") add("row", "of another format", sound_rows()[3].second);
    // Texts that a row must not hold.
    each_json_change(
        value, {}, [&](const std::string& path, const std::string& change, const json& changed) {
          if (change != "changed" || path.find("tool") != std::string::npos) return;
          const std::string text = changed.dump();
          const json::json_pointer at("/" + [&] {
            std::string pointer = path;
            std::replace(pointer.begin(), pointer.end(), '.', '/');
            return pointer;
          }());
          for (const auto& [what, added] : std::map<std::string, std::string>{
                   {"begin token", "<｜begin▁of▁sentence｜>"},
                   {"end token", "<｜end▁of▁sentence｜>"},
                   {"role token", "<｜User｜>"},
                   {"role token with ASCII bars", "<|User|>"},
                   {"unclosed think", "<think>"},
                   {"replacement character", "\xef\xbf\xbd"},
                   {"read as Latin-1", "caf\xc3\x83\xc2\xa9"},
                   {"call in V3's grammar", "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f"}}) {
            json spoilt = value;
            const std::string old = spoilt[at];
            spoilt[at] = what == "begin token" ? added + old : old + added;
            add(path, "text: " + what, spoilt.dump());
          }
        });
  }
  constexpr const char* kRole = "messages: *.role|sharegpt: *.from";
  constexpr const char* kMessages =
      "messages: messages|messages: messages.?|messages: messages.?.role|"
      "messages: messages.?.content";
  constexpr const char* kAnswer =
      "messages: messages.2.content|messages: messages.4.content|sharegpt: *.1.value|"
      "alpaca: output|alpaca: history.0.1|pair: completion";
  group.caught = {
      {"*: row", "cut", "invalid-json"},
      {"*: row", "no UTF-8", "invalid-utf8"},
      {"messages: row", "list", "missing-field"},
      {"*: row", "list|empty object|of another format", "other-format"},
      {"*: row", "the row before", "duplicate-row"},
      {"*: row", "*", "bad-type"},
      {"*", "written twice", "duplicate-key", {.key = "*"}},
      {kRole, "removed", "missing-field"},
      {kRole, "null", "null-content"},
      {kRole, "changed|empty|text: *", "unknown-role"},
      {"*.arguments", "removed|null", "arguments-missing"},
      {"*.arguments", "object", "arguments-object"},
      {"*.arguments", "changed|empty", "arguments-not-json"},
      {"*.function.name", "changed", "unknown-tool"},
      {"*.tool_calls", "removed|null|empty", "empty-answer"},
      {"*.tool_calls.0", "removed", "empty-answer"},
      {"messages: *.function*|*.tool_calls|*.tool_calls.0",
       "removed|null|text|number|boolean|list|object|empty", "bad-tool-call"},
      {"messages: tools*", "text|number|boolean|object", "bad-tools"},
      {"messages: tools.0", "null|list|empty", "bad-tools"},
      {"messages: messages.3.content", "object", "content-object"},
      {"messages: *.content|sharegpt: *.value", "list", "joined-parts"},
      {"*: messages|*: conversations|pair: *|text: text|tokens: input_ids", "removed|key misspelt",
       "other-format"},
      {"messages: messages.1|messages: messages.2|messages: messages.3|sharegpt: conversations.0",
       "removed",
       "roles-not-alternating",
       {.key = "*"}},
      {"messages: messages.4", "removed", "unanswered-turn"},
      {"sharegpt: conversations.1", "removed", "no-answer"},
      {"sharegpt: conversations", "first element twice", "unanswered-turn"},
      {"messages: messages.?|sharegpt: conversations.?", "empty", "missing-field"},
      {"messages: messages.[0134].content|sharegpt: *.value|alpaca: instruction|alpaca: output",
       "removed|key misspelt", "missing-field"},
      {"messages: messages.[0134].content|sharegpt: *.value|alpaca: instruction|alpaca: output|"
       "pair: *|text: text",
       "null", "null-content"},
      {"alpaca: history.0.?", "removed", "bad-type"},
      {"alpaca: history.0", "empty|first element twice", "bad-type"},
      {"messages: messages|sharegpt: conversations|text: text|tokens: input_ids", "empty",
       "empty-row"},
      {"messages: messages.1.content|sharegpt: *.0.value|alpaca: history.0.0|pair: prompt", "empty",
       "empty-prompt"},
      {"messages: messages.4.content|sharegpt: *.1.value|alpaca: history.0.1|alpaca: output|"
       "pair: completion",
       "empty", "empty-answer"},
      {"tokens: input_ids|tokens: labels", "empty|first element twice", "length-mismatch"},
      {"tokens: *.?", "removed", "length-mismatch"},
      {"tokens: *.?", "huge", "bad-id"},
      {"tokens: labels.[01]", "one more|one less|twice", "bad-id"},
      {"tokens: input_ids.0", "one less", "bad-id"},
      {"tokens: labels.[01]", "negative", "label-differs"},
      {"tokens: *.?", "negative", "bad-id"},
      {"tokens: labels.1", "zero", "label-differs"},
      {"tokens: *.[234]", "one more|one less|zero|twice", "label-differs"},
      {"tokens: *.?", "with a fraction", "bad-type"},
      {kMessages, "text|number|boolean|object", "bad-type"},
      {"messages: messages.?.role", "list", "bad-type"},
      {"sharegpt: *|alpaca: *|pair: *|text: *|tokens: *", "text|number|boolean|object", "bad-type"},
      {"messages: messages.?|sharegpt: *|alpaca: *|pair: *|text: *|tokens: *", "list", "bad-type"},
      {"messages: messages|messages: messages.?|sharegpt: conversations*|alpaca: history.*|"
       "tokens: input_ids*|tokens: labels.?",
       "null", "bad-type"},
      {"alpaca: input", "text: begin token", "control-token-in-text"},
      {"*", "text: begin token", "bos-in-text"},
      {"*", "text: read as Latin-1", "mojibake"},
      {"*", "text: replacement character", "replacement-character"},
      {"*", "text: role token with ASCII bars", "near-miss-in-text"},
      {"text: text", "text: end token", "eos-in-text"},
      {kAnswer, "text: end token", "eos-in-text"},
      {kAnswer, "text: call in V3's grammar", "v3-calls"},
      {"messages: messages.2.content|sharegpt: *.1.value|alpaca: output|alpaca: history.0.1|"
       "pair: completion",
       "text: unclosed think", "unclosed-think"},
      {"messages: *|sharegpt: *|alpaca: *|pair: *",
       "text: role token|text: end token|text: call in V3's grammar", "control-token-in-text"},
  };
  return group;
}

}  // namespace ds::test
