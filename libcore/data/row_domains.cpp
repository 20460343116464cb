// Rows of pairs of answers, of PubMedQA, CLINC150 and BANKING77.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "libcore/base/format.h"
#include "libcore/data/row_fields.h"

namespace ds::rows {
namespace {

// An answer of a pair: a text, one message, or a list that may hold the prompt as well.
void read_side(Json& side, const std::string& key, const RowRules& rules, ConvertedRow& row,
               Conversation& conversation) {
  if (side.is_array()) return read_turns(side, key, true, rules, row, conversation);
  if (side.is_object()) {
    bool learned = true;
    Message message = read_turn(side, key, rules, row, learned);
    if (!learned) row.masked.push_back(conversation.messages.size());
    conversation.messages.push_back(std::move(message));
    return;
  }
  if (!side.is_string()) {
    drop("bad_type", key, describe_value(side) + ", a text or messages are needed");
  }
  Message message;
  message.role = Role::kAssistant;
  message.content = side.get<std::string>();
  conversation.messages.push_back(std::move(message));
}

void add_user(std::string text, Conversation& conversation) {
  Message message;
  message.role = Role::kUser;
  message.content = std::move(text);
  conversation.messages.push_back(std::move(message));
}

// The texts of a list, a line each.
std::string join_lines(const Json& list, const std::string& field) {
  if (list.is_string()) return list.get<std::string>();
  if (!list.is_array()) drop("bad_type", field, describe_value(list) + ", texts are needed");
  std::string text;
  for (std::size_t i = 0; i < list.size(); ++i) {
    if (!list[i].is_string()) {
      drop("bad_type", fmt::format("{}[{}]", field, i),
           describe_value(list[i]) + ", a text is needed");
    }
    if (i > 0) text += '\n';
    text += list[i].get_ref<const std::string&>();
  }
  return text;
}

}  // namespace

Conversation read_pair(Json& row, const RowRules& rules, ConvertedRow& result) {
  Conversation conversation;
  add_system(row, conversation);
  const std::size_t first = conversation.messages.size();
  read_settings(row, result, conversation);
  for (const char* key : {"chosen", "rejected"}) {
    const Json* side = find(row, key);
    if (side == nullptr) drop("missing_field", key, "missing or null, an answer is needed");
  }
  const std::string key = rules.chosen ? "chosen" : "rejected";
  Json& side = *find(row, key);
  std::string prompt_field = "prompt";
  for (const char* name : {"prompt", "conversations", "messages", "question"}) {
    if (find(row, name) != nullptr) {
      prompt_field = name;
      break;
    }
  }
  Json* prompt = find(row, prompt_field);
  if (prompt == nullptr && row.contains("instruction")) {
    add_user(read_instruction(row), conversation);
    prompt_field = "instruction";
  } else if (prompt != nullptr && prompt->is_array()) {
    const bool repeated =
        side.is_array() && !side.empty() && !prompt->empty() && side[0] == (*prompt)[0];
    read_turns(*prompt, prompt_field, false, rules, result, conversation);
    // A list of the prompt and the answer stands in both places.
    if (repeated && side.size() > conversation.messages.size() - first) {
      conversation.messages.resize(first);
      result.masked.clear();
    }
  } else if (prompt != nullptr) {
    if (!prompt->is_string()) {
      drop("bad_type", prompt_field, describe_value(*prompt) + ", a text or messages are needed");
    }
    const bool whole = side.is_array() && side.size() > 1;
    if (!whole) add_user(prompt->get<std::string>(), conversation);
  } else if (!side.is_array()) {
    drop("missing_field", "prompt", "missing, a text or messages are needed");
  }
  read_side(side, key, rules, result, conversation);
  check_conversation(prompt_field + "+" + key, first, rules, result, conversation);
  return conversation;
}

Conversation read_pubmedqa(const Json& row, const RowRules& rules, ConvertedRow& result) {
  Conversation conversation;
  add_system(row, conversation);
  const bool original = row.contains("QUESTION");
  const std::string question = need_text(row, original ? "QUESTION" : "question");
  const std::string context_field = original ? "CONTEXTS" : "context.contexts";
  const Json* contexts = find(row, original ? "CONTEXTS" : "context");
  if (contexts != nullptr && contexts->is_object()) contexts = find(*contexts, "contexts");
  std::string prompt;
  if (contexts != nullptr) prompt = join_lines(*contexts, context_field);
  if (!prompt.empty()) prompt += "\n\n";
  prompt += question;
  std::string answer_field = "final_decision";
  if (rules.long_answer) {
    answer_field = original ? "LONG_ANSWER" : "long_answer";
  } else {
    prompt += "\nAnswer with yes, no or maybe.";
  }
  std::string answer = need_text(row, answer_field);
  if (!rules.long_answer && answer != "yes" && answer != "no" && answer != "maybe") {
    drop("bad_type", answer_field, quote_text(answer, 60) + ", yes, no or maybe is needed");
  }
  add_exchange(std::move(prompt), "question", std::move(answer), answer_field, result,
               conversation);
  return conversation;
}

Conversation read_clinc150(const Json& row, ConvertedRow& result) {
  Conversation conversation;
  if (row.is_object()) {
    add_system(row, conversation);
    add_exchange(need_text(row, "text"), "text", need_text(row, "intent"), "intent", result,
                 conversation);
    return conversation;
  }
  if (row.size() != 2) drop("bad_type", "", describe_value(row) + ", [text, intent] is needed");
  for (const std::size_t i : {0u, 1u}) {
    if (row[i].is_string()) continue;
    drop("bad_type", fmt::format("row[{}]", i), describe_value(row[i]) + ", a text is needed");
  }
  add_exchange(row[0].get<std::string>(), "row[0]", row[1].get<std::string>(), "row[1]", result,
               conversation);
  return conversation;
}

Conversation read_banking77(const Json& row, ConvertedRow& result) {
  Conversation conversation;
  add_system(row, conversation);
  add_exchange(need_text(row, "text"), "text", need_text(row, "category"), "category", result,
               conversation);
  return conversation;
}

}  // namespace ds::rows
