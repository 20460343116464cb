#include "libcore/data/formats.h"

#include <fmt/format.h>

#include <array>
#include <limits>
#include <nlohmann/json.hpp>
#include <utility>

#include "libcore/base/format.h"
#include "libcore/data/example.h"
#include "libcore/data/row_fields.h"

namespace ds {
namespace {

using namespace rows;

struct Format {
  DataFormat format;
  std::string_view name;
  bool detected;
};
// In the order in which they are looked for.
constexpr std::array kFormats = {
    Format{DataFormat::kTokens, "tokens", true},
    Format{DataFormat::kDpo, "dpo", true},
    Format{DataFormat::kMessages, "messages", true},
    Format{DataFormat::kShareGpt, "sharegpt", true},
    Format{DataFormat::kAlpaca, "alpaca", true},
    Format{DataFormat::kPromptCompletion, "prompt_completion", true},
    Format{DataFormat::kPubMedQa, "pubmedqa", true},
    Format{DataFormat::kClinc150, "clinc150", false},
    Format{DataFormat::kBanking77, "banking77", false},
    Format{DataFormat::kText, "text", true},
};

}  // namespace

namespace rows {

void add_system(const Json& row, Conversation& conversation) {
  std::string text = optional_text(row, "system");
  if (text.empty()) return;
  Message message;
  message.role = Role::kSystem;
  message.content = std::move(text);
  conversation.messages.push_back(std::move(message));
}

void add_exchange(std::string question, const std::string& question_field, std::string answer,
                  const std::string& answer_field, ConvertedRow& result,
                  Conversation& conversation) {
  if (question.empty()) {
    result.repairs.push_back(
        {"empty_prompt", question_field, question_field + ": an empty text; kept as it is"});
  }
  if (is_blank(answer)) drop("empty_answer", answer_field, "the answer is empty, a text is needed");
  Message user;
  user.role = Role::kUser;
  user.content = std::move(question);
  Message assistant;
  assistant.role = Role::kAssistant;
  assistant.content = std::move(answer);
  conversation.messages.push_back(std::move(user));
  conversation.messages.push_back(std::move(assistant));
}

std::string read_instruction(const Json& row) {
  std::string prompt = need_text(row, "instruction");
  const std::string input = optional_text(row, "input");
  if (!prompt.empty() && !input.empty()) prompt += '\n';
  return prompt + input;
}

}  // namespace rows

namespace {

Conversation read_messages(Json& row, const std::string& key, const RowRules& rules,
                           ConvertedRow& result) {
  Conversation conversation;
  if (row.is_array()) {
    read_turns(row, "row", true, rules, result, conversation);
    check_conversation("row", 0, rules, result, conversation);
    return conversation;
  }
  add_system(row, conversation);
  const std::size_t first = conversation.messages.size();
  read_settings(row, result, conversation);
  read_turns(row[key], key, true, rules, result, conversation);
  check_conversation(key, first, rules, result, conversation);
  return conversation;
}

Conversation read_alpaca(const Json& row, ConvertedRow& result) {
  Conversation conversation;
  add_system(row, conversation);
  read_settings(row, result, conversation);
  if (const Json* history = find(row, "history")) {
    if (!history->is_array()) {
      drop("bad_type", "history", describe_value(*history) + ", a list of pairs is needed");
    }
    for (std::size_t i = 0; i < history->size(); ++i) {
      const Json& pair = (*history)[i];
      const std::string field = fmt::format("history[{}]", i);
      if (!pair.is_array() || pair.size() != 2) {
        drop("bad_type", field, describe_value(pair) + ", a pair [question, answer] is needed");
      }
      for (std::size_t j = 0; j < 2; ++j) {
        if (pair[j].is_string()) continue;
        drop("bad_type", fmt::format("{}[{}]", field, j),
             describe_value(pair[j]) + ", a text is needed");
      }
      add_exchange(pair[0].get<std::string>(), field + "[0]", pair[1].get<std::string>(),
                   field + "[1]", result, conversation);
    }
  }
  add_exchange(read_instruction(row), "instruction", need_text(row, "output"), "output", result,
               conversation);
  return conversation;
}

// Prompt and completion are texts, or lists of messages of which only the completion is learned.
RowContent read_prompt_completion(Json& row, const RowRules& rules, ConvertedRow& result) {
  Json* prompt = find(row, "prompt");
  Json* completion = find(row, "completion");
  if (prompt != nullptr && completion != nullptr && prompt->is_array() && completion->is_array()) {
    Conversation conversation;
    read_settings(row, result, conversation);
    read_turns(*prompt, "prompt", false, rules, result, conversation);
    read_turns(*completion, "completion", true, rules, result, conversation);
    check_conversation("prompt+completion", 0, rules, result, conversation);
    return conversation;
  }
  PromptCompletionRow texts{need_text(row, "prompt"), need_text(row, "completion")};
  if (is_blank(texts.completion)) {
    drop("empty_answer", "completion", "the completion is empty, a text is needed");
  }
  if (texts.prompt.empty()) {
    result.repairs.push_back({"empty_prompt", "prompt", "prompt: an empty text; kept as it is"});
  }
  return texts;
}

TextRow read_text(const Json& row, const RowRules& rules, ConvertedRow& result) {
  TextRow text{need_text(row, "text")};
  if (!is_blank(text.text)) return text;
  if (!rules.blank_text) drop("empty_row", "text", "the text is empty");
  if (text.text.empty()) {
    result.repairs.push_back({"empty_text", "text", "text: an empty text; kept as it is"});
  }
  return text;
}

std::vector<std::int32_t> read_ids(const Json& list, const char* field, bool labels) {
  if (!list.is_array()) {
    drop("bad_type", field, describe_value(list) + ", a list of token ids is needed");
  }
  constexpr std::int64_t kLargest = std::numeric_limits<std::int32_t>::max();
  std::vector<std::int32_t> ids;
  ids.reserve(list.size());
  for (std::size_t i = 0; i < list.size(); ++i) {
    const Json& value = list[i];
    const auto where = [&] { return fmt::format("{}[{}]", field, i); };
    if (!value.is_number_integer()) {
      drop("bad_type", where(), describe_value(value) + ", a token id is needed");
    }
    const auto id = value.is_number_unsigned() && value.get<std::uint64_t>() > kLargest
                        ? kLargest + 1
                        : value.get<std::int64_t>();
    if (id > kLargest || (id < 0 && !(labels && id == kNoTarget))) {
      drop("bad_id", where(),
           fmt::format("{}, {} is needed", describe_value(value),
                       labels ? "a token id or -100" : "a token id of at least 0"));
    }
    ids.push_back(static_cast<std::int32_t>(id));
  }
  return ids;
}

TokenRow read_tokens(const Json& row, const RowRules& rules) {
  TokenRow tokens;
  tokens.ids = read_ids(row["input_ids"], "input_ids", false);
  if (tokens.ids.empty() && !rules.blank_text) {
    drop("empty_row", "input_ids", "an empty list, token ids are needed");
  }
  const Json* labels = find(row, "labels");
  if (labels == nullptr) {
    tokens.labels = tokens.ids;
    return tokens;
  }
  tokens.labels = read_ids(*labels, "labels", true);
  if (tokens.labels.size() != tokens.ids.size()) {
    drop("length_mismatch", "labels",
         fmt::format("{} labels for {} input_ids, as many are needed", tokens.labels.size(),
                     tokens.ids.size()));
  }
  return tokens;
}

RowContent read_row(Json& row, DataFormat format, const RowRules& rules, ConvertedRow& result) {
  switch (format) {
    case DataFormat::kMessages:
      return read_messages(row, "messages", rules, result);
    case DataFormat::kShareGpt:
      return read_messages(row, "conversations", rules, result);
    case DataFormat::kAlpaca:
      return read_alpaca(row, result);
    case DataFormat::kPromptCompletion:
      return read_prompt_completion(row, rules, result);
    case DataFormat::kText:
      return read_text(row, rules, result);
    case DataFormat::kDpo:
      return read_pair(row, rules, result);
    case DataFormat::kPubMedQa:
      return read_pubmedqa(row, rules, result);
    case DataFormat::kClinc150:
      return read_clinc150(row, result);
    case DataFormat::kBanking77:
      return read_banking77(row, result);
    case DataFormat::kTokens:
      break;
  }
  return read_tokens(row, rules);
}

}  // namespace

std::string_view data_format_name(DataFormat format) {
  for (const Format& known : kFormats) {
    if (known.format == format) return known.name;
  }
  return "unknown";
}

std::optional<DataFormat> parse_data_format(std::string_view name) {
  for (const Format& known : kFormats) {
    if (known.name == name) return known.format;
  }
  return std::nullopt;
}

bool has_format(const Json& row, DataFormat format) {
  if (row.is_array()) {
    // The form {role, content} without the object around it, or a pair of texts.
    return format == DataFormat::kMessages || format == DataFormat::kClinc150;
  }
  if (!row.is_object()) return false;
  const auto has = [&row](std::string_view key) { return member(row, key) != nullptr; };
  switch (format) {
    case DataFormat::kMessages:
      return has("messages");
    case DataFormat::kShareGpt:
      return has("conversations");
    case DataFormat::kAlpaca:
      return has("instruction") || (has("input") && has("output"));
    case DataFormat::kPromptCompletion:
      return has("prompt") && has("completion");
    case DataFormat::kText:
      return has("text");
    case DataFormat::kDpo:
      return has("chosen") && has("rejected");
    case DataFormat::kPubMedQa:
      return (has("QUESTION") && (has("CONTEXTS") || has("final_decision"))) ||
             (has("question") && has("context") && has("final_decision"));
    case DataFormat::kClinc150:
      return has("text") && has("intent");
    case DataFormat::kBanking77:
      return has("text") && has("category");
    case DataFormat::kTokens:
      break;
  }
  return has("input_ids");
}

std::optional<DataFormat> detect_format(const Json& row, bool pairs) {
  for (const Format& known : kFormats) {
    if (!known.detected || (known.format == DataFormat::kDpo && !pairs)) continue;
    if (has_format(row, known.format)) return known.format;
  }
  return std::nullopt;
}

std::string describe_keys(const Json& row) {
  if (!row.is_object()) return describe_value(row);
  if (row.empty()) return "no keys";
  std::string text = row.size() == 1 ? "the key" : "the keys";
  std::size_t shown = 0;
  for (const auto& [key, value] : row.items()) {
    if (++shown > 8) return text + fmt::format(" and {} more", row.size() - 8);
    text += (shown == 1 ? " " : ", ") + (is_blank(key) ? "\"\"" : quote_text(key, 40));
  }
  return text;
}

ConvertedRow take_row(Json& row, DataFormat format, const RowRules& rules) {
  ConvertedRow result;
  result.format = format;
  try {
    if (!has_format(row, format)) {
      drop("missing_field", "",
           fmt::format("{}, a row of format {} is needed", describe_keys(row),
                       data_format_name(format)));
    }
    result.content = read_row(row, format, rules, result);
  } catch (const BadRow& bad) {
    result.problem = bad.problem;
    result.repairs.clear();
    result.masked.clear();
  }
  return result;
}

ConvertedRow convert_row(const Json& row, DataFormat format, const RowRules& rules) {
  Json copy = row;
  return take_row(copy, format, rules);
}

}  // namespace ds
