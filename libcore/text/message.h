// A conversation, whatever format it came from.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace ds {

enum class Role { kSystem, kUser, kAssistant, kTool };

struct ToolCall {
  std::string name;
  std::string arguments;  // JSON text, as given or python_json of an object
};

struct Message {
  Role role = Role::kUser;
  std::optional<std::string> content;    // absent: null
  std::optional<std::string> reasoning;  // reasoning_content
  std::vector<ToolCall> tool_calls;
  bool prefix = false;  // DeepSeek's chat prefix completion
};

struct Conversation {
  std::vector<Message> messages;
  std::string tools_json;        // the tools array as JSON text (key order kept); empty: none
  std::optional<bool> thinking;  // per-row setting
};

}  // namespace ds
