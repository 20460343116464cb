// Per-row settings of conversations: tools, thinking, chat_template_kwargs.
#include <fmt/format.h>

#include "libcore/base/format.h"
#include "libcore/data/row_fields.h"
#include "libcore/text/chat_template.h"

namespace ds::rows {
namespace {

// true, false, or DeepSeek's {"type": "enabled" | "disabled"}.
bool read_switch(const Json& value, const std::string& field) {
  if (value.is_boolean()) return value.get<bool>();
  const Json* type = find(value, "type");
  if (type != nullptr && *type == "enabled") return true;
  if (type != nullptr && *type == "disabled") return false;
  drop("bad_type", field, describe_value(value) + ", true or false is needed");
}

// The tools array, each entry as {"type": "function", "function": {...}}.
std::string read_tools(const Json& given, const std::string& field) {
  Json parsed;
  const Json* tools = &given;
  if (given.is_string()) {
    const auto& text = given.get_ref<const std::string&>();
    if (is_blank(text)) return "";
    parsed = Json::parse(text, nullptr, false);
    if (parsed.is_discarded()) {
      drop("bad_tools", field, quote_text(text, 60) + ", the JSON text of a list is needed");
    }
    tools = &parsed;
  }
  if (tools->is_null()) return "";
  if (!tools->is_array()) {
    drop("bad_tools", field, describe_value(*tools) + ", a list of tools is needed");
  }
  if (tools->empty()) return "";
  Json result = Json::array();
  for (std::size_t i = 0; i < tools->size(); ++i) {
    const Json& tool = (*tools)[i];
    const std::string at = fmt::format("{}[{}]", field, i);
    const bool wrapped = tool.is_object() && tool.contains("function");
    const Json& function = wrapped ? tool["function"] : tool;
    const Json* name = find(function, "name");
    if (name == nullptr || !name->is_string()) {
      drop("bad_tools", at, "no name, a function with a name is needed");
    }
    result.push_back(wrapped ? tool : Json{{"type", "function"}, {"function", tool}});
  }
  return python_json(result, false);
}

void read_one(const Json& object, const std::string& prefix, ConvertedRow& row,
              Conversation& conversation) {
  if (const Json* tools = find(object, "tools"); tools && conversation.tools_json.empty()) {
    conversation.tools_json = read_tools(*tools, prefix + "tools");
  }
  if (const Json* value = find(object, "thinking"); value && !conversation.thinking) {
    conversation.thinking = read_switch(*value, prefix + "thinking");
  }
  if (const Json* value = find(object, "add_generation_prompt");
      value && !row.add_generation_prompt) {
    row.add_generation_prompt = read_switch(*value, prefix + "add_generation_prompt");
  }
  if (const Json* value = find(object, "enable_thinking")) {
    const std::string field = prefix + "enable_thinking";
    row.repairs.push_back({"enable_thinking", field, field + ": read as thinking"});
    const bool on = read_switch(*value, field);
    if (!conversation.thinking) conversation.thinking = on;
  }
}

}  // namespace

void read_settings(const Json& object, ConvertedRow& row, Conversation& conversation) {
  read_one(object, "", row, conversation);
  const Json* settings = find(object, "chat_template_kwargs");
  if (settings == nullptr) return;
  if (!settings->is_object()) {
    drop("bad_type", "chat_template_kwargs", describe_value(*settings) + ", an object is needed");
  }
  read_one(*settings, "chat_template_kwargs.", row, conversation);
}

}  // namespace ds::rows
