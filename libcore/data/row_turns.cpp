// Turns of conversations: messages and sharegpt.
#include <fmt/format.h>

#include <array>
#include <utility>

#include "libcore/base/format.h"
#include "libcore/data/row_fields.h"
#include "libcore/text/chat_template.h"

namespace ds::rows {
namespace {

enum class Spelling { kUsual, kShareGpt, kOther };
struct RoleName {
  std::string_view name;
  Role role;
  Spelling spelling;
};
constexpr std::array kRoles = {
    RoleName{"system", Role::kSystem, Spelling::kUsual},
    RoleName{"user", Role::kUser, Spelling::kUsual},
    RoleName{"assistant", Role::kAssistant, Spelling::kUsual},
    RoleName{"tool", Role::kTool, Spelling::kUsual},
    RoleName{"human", Role::kUser, Spelling::kShareGpt},
    RoleName{"gpt", Role::kAssistant, Spelling::kShareGpt},
    RoleName{"observation", Role::kTool, Spelling::kShareGpt},
    RoleName{"function_call", Role::kAssistant, Spelling::kShareGpt},
    RoleName{"chatgpt", Role::kAssistant, Spelling::kOther},
    RoleName{"model", Role::kAssistant, Spelling::kOther},
    RoleName{"developer", Role::kSystem, Spelling::kOther},
    RoleName{"function", Role::kTool, Spelling::kOther},
};

std::string_view role_name(Role role) { return kRoles[static_cast<std::size_t>(role)].name; }

// Reads the role, `value` or missing; `sharegpt` says that the turn has the keys from and value.
Role read_role(const Json& turn, const Json* value, const std::string& field, bool sharegpt,
               ConvertedRow& row) {
  const char* key = sharegpt ? ".from" : ".role";
  if (value == nullptr || !value->is_string()) need_text(turn, key + 1, field + ".");
  const std::string_view name = value->get_ref<const std::string&>();
  for (const RoleName& known : kRoles) {
    if (known.name != name) continue;
    const bool usual =
        known.spelling == Spelling::kUsual || (known.spelling == Spelling::kShareGpt && sharegpt);
    if (!usual) {
      row.repairs.push_back({"role_renamed", field + key,
                             fmt::format("{}{}: {} is read as {}", field, key, quote_text(name),
                                         role_name(known.role))});
    }
    return known.role;
  }
  drop("unknown_role", field + key,
       quote_text(name) + (sharegpt ? ", human, gpt, system, observation or function_call is needed"
                                    : ", system, user, assistant or tool is needed"));
}

// Text of a content that is neither null nor a text.
std::string content_text(const Json& content, Role role, const std::string& field,
                         ConvertedRow& row) {
  if (content.is_object() && role == Role::kTool) {
    row.repairs.push_back({"content_object", field, field + ": an object, written as JSON text"});
    return python_json(content, false);
  }
  if (!content.is_array()) {
    drop("bad_type", field, describe_value(content) + ", a text is needed");
  }
  std::string text;
  for (std::size_t i = 0; i < content.size(); ++i) {
    const Json& part = content[i];
    const std::string at = fmt::format("{}[{}]", field, i);
    if (part.is_string()) {
      text += part.get_ref<const std::string&>();
      continue;
    }
    if (!part.is_object()) drop("bad_type", at, describe_value(part) + ", a text part is needed");
    const Json* type = find(part, "type");
    if (type != nullptr && (!type->is_string() || *type != "text")) {
      drop("content_not_text", at + ".type", describe_value(*type) + ", \"text\" is needed");
    }
    text += need_text(part, "text", at + ".");
  }
  row.repairs.push_back({"joined_parts", field,
                         fmt::format("{}: {} parts joined to one text", field, content.size())});
  return text;
}

}  // namespace

std::string read_arguments(const Json* arguments, const std::string& field, ConvertedRow& row) {
  if (arguments == nullptr) {
    row.repairs.push_back({"arguments_missing", field, field + ": absent, read as {}"});
    return "{}";
  }
  if (arguments->is_object()) {
    row.repairs.push_back({"arguments_object", field, field + ": an object, written as JSON text"});
    return python_json(*arguments, false);
  }
  if (!arguments->is_string()) {
    drop("bad_tool_call", field, describe_value(*arguments) + ", JSON text or an object is needed");
  }
  std::string text = arguments->get<std::string>();
  const Json inner = Json::parse(text, nullptr, false);
  if (inner.is_string()) {
    const Json twice = Json::parse(inner.get_ref<const std::string&>(), nullptr, false);
    if (twice.is_object()) {
      row.repairs.push_back(
          {"arguments_encoded_twice", field, field + ": JSON text encoded twice, decoded once"});
      return inner.get<std::string>();
    }
  }
  if (!inner.is_object()) {
    row.repairs.push_back(
        {"arguments_not_json", field,
         fmt::format("{}: {}, the JSON text of an object is needed; kept as it is", field,
                     quote_text(text, 60))});
  }
  return text;
}

namespace {

ToolCall read_call(const Json& call, const std::string& field, ConvertedRow& row) {
  if (!call.is_object())
    drop("bad_tool_call", field, describe_value(call) + ", an object is needed");
  const Json* function = find(call, "function");
  const std::string at = function != nullptr ? field + ".function" : field;
  const Json& body = function != nullptr ? *function : call;
  if (!body.is_object()) drop("bad_tool_call", at, describe_value(body) + ", an object is needed");
  const Json* name = find(body, "name");
  if (name == nullptr || !name->is_string() || name->get_ref<const std::string&>().empty()) {
    drop("bad_tool_call", at + ".name",
         (name == nullptr ? "missing" : describe_value(*name)) + ", the tool's name is needed");
  }
  return {name->get<std::string>(),
          read_arguments(find(body, "arguments"), at + ".arguments", row)};
}

// sharegpt: the value of a function_call turn is JSON text of one call or of several.
std::vector<ToolCall> read_call_text(const std::string& text, const std::string& field,
                                     ConvertedRow& row) {
  const Json value = Json::parse(text, nullptr, false);
  if (value.is_object()) return read_calls(Json::array({value}), field, row);
  if (value.is_array() && !value.empty()) return read_calls(value, field, row);
  drop("bad_tool_call", field,
       quote_text(text, 60) + R"(, JSON text {"name": ..., "arguments": ...} is needed)");
}

bool read_learned(const Json& turn, const std::string& field) {
  for (const std::string_view key : {"loss", "weight"}) {
    const Json* value = find(turn, key);
    if (value == nullptr) continue;
    if (value->is_boolean()) return value->get<bool>();
    if (value->is_number() && (*value == 0 || *value == 1)) return *value == 1;
    drop("bad_type", fmt::format("{}.{}", field, key),
         describe_value(*value) + ", true or false (1 or 0) is needed");
  }
  return true;
}

}  // namespace

std::vector<ToolCall> read_calls(const Json& calls, const std::string& field, ConvertedRow& row) {
  if (!calls.is_array()) {
    drop("bad_tool_call", field, describe_value(calls) + ", a list of calls is needed");
  }
  std::vector<ToolCall> result;
  for (std::size_t i = 0; i < calls.size(); ++i) {
    result.push_back(read_call(calls[i], fmt::format("{}[{}]", field, i), row));
  }
  if (result.empty()) {
    row.repairs.push_back({"empty_tool_calls", field, field + ": an empty list, read as absent"});
  }
  return result;
}

Message read_turn(Json& turn, const std::string& field, const RowRules& rules, ConvertedRow& row,
                  bool& learned) {
  if (!turn.is_object()) {
    drop("bad_type", field, describe_value(turn) + ", an object with role and content is needed");
  }
  const Json* from = member(turn, "from");
  const Json* name = member(turn, "role");
  const bool sharegpt = from != nullptr && name == nullptr;
  Message message;
  message.role = read_role(turn, sharegpt ? from : name, field, sharegpt, row);
  const bool assistant = message.role == Role::kAssistant;
  const std::string_view content_key = sharegpt ? "value" : "content";
  const bool calls = sharegpt && from->get_ref<const std::string&>() == "function_call";
  // Most turns have a role and a text and nothing else.
  if (turn.size() == 2 && !calls) {
    if (Json* content = find(turn, content_key); content != nullptr && content->is_string()) {
      learned = true;
      message.content = std::move(content->get_ref<std::string&>());
      return message;
    }
  }
  learned = message.role != Role::kAssistant || read_learned(turn, field);
  if (calls) {
    message.tool_calls =
        read_call_text(need_text(turn, content_key, field + "."), field + ".value", row);
    return message;
  }
  if (const Json* list = find(turn, "tool_calls")) {
    message.tool_calls = read_calls(*list, field + ".tool_calls", row);
    if (!assistant && !message.tool_calls.empty()) {
      drop("bad_tool_call", field + ".tool_calls",
           fmt::format("calls in a {} message, only the assistant makes calls",
                       role_name(message.role)));
    }
  }
  if (const Json* call = find(turn, "function_call"); call != nullptr && assistant) {
    row.repairs.push_back({"function_call", field + ".function_call",
                           field + ".function_call: read as tool_calls of one call"});
    message.tool_calls.push_back(read_call(*call, field + ".function_call", row));
  }
  for (const std::string_view key : {"reasoning_content", "reasoning"}) {
    const Json* reasoning = assistant ? find(turn, key) : nullptr;
    if (reasoning == nullptr) continue;
    if (!reasoning->is_string()) {
      drop("bad_type", fmt::format("{}.{}", field, key),
           describe_value(*reasoning) + ", a text is needed");
    }
    if (!reasoning->get_ref<const std::string&>().empty()) {
      message.reasoning = reasoning->get<std::string>();
    }
    break;
  }
  if (const Json* prefix = find(turn, "prefix"); prefix != nullptr && assistant) {
    if (!prefix->is_boolean()) {
      drop("bad_type", field + ".prefix", describe_value(*prefix) + ", true or false is needed");
    }
    message.prefix = prefix->get<bool>();
  }
  if (Json* content = find(turn, content_key)) {
    if (content->is_string()) {
      message.content = std::move(content->get_ref<std::string&>());
    } else {
      const std::string at = fmt::format("{}.{}", field, content_key);
      message.content = content_text(*content, message.role, at, row);
    }
  } else if (message.tool_calls.empty()) {
    if (!rules.repair_null) need_text(turn, content_key, field + ".");  // says which of the two
    message.content = "";
    const std::string at = fmt::format("{}.{}", field, content_key);
    row.repairs.push_back({"empty_content", at, at + ": null or missing, read as the empty text"});
  } else if (rules.repair_null && member(turn, content_key) == nullptr) {
    const std::string at = fmt::format("{}.{}", field, content_key);
    row.repairs.push_back({"empty_content", at, at + ": missing beside calls, read as null"});
  }
  return message;
}

void read_turns(Json& turns, const std::string& field, bool learn, const RowRules& rules,
                ConvertedRow& row, Conversation& conversation) {
  if (!turns.is_array()) {
    drop("bad_type", field, describe_value(turns) + ", a list of messages is needed");
  }
  const bool prompt = rules.prompts && row.add_generation_prompt.value_or(rules.generation_prompt);
  if (turns.empty() && !prompt) {
    drop("empty_row", field, "an empty list, at least one answer is needed");
  }
  conversation.messages.reserve(conversation.messages.size() + turns.size());
  std::string at;
  for (std::size_t i = 0; i < turns.size(); ++i) {
    bool learned = true;
    at = field;
    at.append("[").append(std::to_string(i)).append("]");
    Message message = read_turn(turns[i], at, rules, row, learned);
    const bool answer = message.role == Role::kAssistant;
    if (answer && !(learn && learned)) row.masked.push_back(conversation.messages.size());
    conversation.messages.push_back(std::move(message));
  }
}

void check_conversation(const std::string& field, std::size_t first, const RowRules& rules,
                        ConvertedRow& row, Conversation& conversation) {
  if (rules.rewrite_calls) rewrite_calls(field, first, row, conversation);
  const bool prompt = rules.prompts && row.add_generation_prompt.value_or(rules.generation_prompt);
  if (!rules.answers || prompt) return;
  std::vector<Message>& messages = conversation.messages;
  const auto at = [&](std::size_t i) { return fmt::format("{}[{}]", field, i - first); };
  const auto keep = [&](const char* kind, std::size_t i, const char* what) {
    row.repairs.push_back({kind, at(i), at(i) + ": " + what});
  };
  const Message* previous = nullptr;  // the last one that is no system message
  std::size_t answered = 0;           // messages up to the last answer
  for (std::size_t i = first; i < messages.size(); ++i) {
    const Message& message = messages[i];
    if (message.role == Role::kSystem) continue;
    const auto before = [&] {
      return previous == nullptr ? "as the first message"
                                 : fmt::format("after {}", role_name(previous->role));
    };
    const bool after_answer = previous != nullptr && previous->role == Role::kAssistant;
    if (message.role == Role::kAssistant) {
      if (previous == nullptr || after_answer) {
        drop("roles_not_alternating", at(i),
             fmt::format("assistant {}, user or a tool result is needed", before()));
      }
      if (message.tool_calls.empty() && !message.reasoning && is_blank(*message.content)) {
        drop("empty_answer", at(i), "the assistant's answer is empty, a text is needed");
      }
      answered = i + 1;
    } else if (message.role == Role::kTool) {
      if (previous == nullptr || previous->role == Role::kUser) {
        drop("roles_not_alternating", at(i),
             fmt::format("a tool result {}, an assistant's call is needed", before()));
      }
      if (after_answer && previous->tool_calls.empty()) {
        keep("tool_without_call", i, "a tool result after an answer without calls; kept as it is");
      }
    } else {
      if (previous != nullptr && !after_answer) {
        drop("roles_not_alternating", at(i), fmt::format("user {}, assistant is needed", before()));
      }
      if (message.content->empty()) keep("empty_prompt", i, "an empty text; kept as it is");
    }
    previous = &message;
  }
  if (answered == 0) {
    drop("no_answer", field,
         fmt::format("{} messages, none of the assistant; its answer is needed",
                     messages.size() - first));
  }
  if (previous->role != Role::kAssistant) {
    keep("unanswered_turn", answered, "no answer follows; left out");
    messages.resize(answered);
  }
}

}  // namespace ds::rows
