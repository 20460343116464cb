#include "libcore/text/tools_block.h"

#include <fmt/format.h>

#include "libcore/base/error.h"
#include "libcore/base/utf8.h"
#include "libcore/text/chat_marks.h"
#include "libcore/text/json_scan.h"
#include "libcore/text/python_json.h"

namespace ds {
namespace {

// The texts of the members of a tool, empty when absent.
struct Members {
  std::string_view function;
  std::string_view name;
  std::string_view description;
  std::string_view parameters;
};

Members read_members(std::string_view object, const std::string& where) {
  Members members;
  JsonScan scan(object, where);
  std::string scratch;
  scan.expect('{');
  if (scan.consume('}')) return members;
  do {
    const std::string key(scan.string(scratch));
    scan.expect(':');
    const std::string_view value = scan.raw_value();
    if (key == "function") members.function = value;
    if (key == "name") members.name = value;
    if (key == "description") members.description = value;
    if (key == "parameters") members.parameters = value;
  } while (scan.consume(','));
  scan.expect('}');
  return members;
}

std::string read_text(std::string_view value, const std::string& where) {
  if (!value.starts_with('"')) {
    throw Error(ExitCode::kBadInput, where + " is no text, a text is needed");
  }
  JsonScan scan(value, where);
  std::string scratch;
  return std::string(scan.string(scratch));
}

std::string tool_block(std::string_view tool, const std::string& where) {
  Members members = read_members(tool, where);
  if (members.function.starts_with('{')) {
    members = read_members(members.function, where + ".function");
  }
  if (members.name.empty()) {
    throw Error(ExitCode::kBadInput, where + ".name is missing, a text is needed");
  }
  const bool described = !members.description.empty() && members.description != "null";
  const bool parameters = !members.parameters.empty() && members.parameters != "null";
  return fmt::format(
      "### {}\nDescription: {}\n\nParameters: {}\n\n", read_text(members.name, where + ".name"),
      described ? read_text(members.description, where + ".description") : "",
      parameters ? python_json_text(members.parameters, where + ".parameters", true) : "{}");
}

}  // namespace

std::string tools_block(std::string_view tools_json) {
  if (utf8_error(tools_json) != kUtf8Valid) {
    throw Error(ExitCode::kBadInput, "tools: no UTF-8, JSON text is needed");
  }
  std::string block = "## Tools\nYou have access to the following tools:\n\n";
  JsonScan scan(tools_json, "tools");
  scan.expect('[');
  std::size_t count = 0;
  if (!scan.consume(']')) {
    do {
      block += tool_block(scan.raw_value(), fmt::format("tools[{}]", count++));
    } while (scan.consume(','));
    scan.expect(']');
  }
  scan.peek();
  if (scan.offset() < tools_json.size()) scan.fail("text after the end of the list");
  block += fmt::format(
      "IMPORTANT: ALWAYS adhere to this exact format for tool use:\n"
      "{}{}tool_call_name{}tool_call_arguments{}{{{{additional_tool_calls}}}}{}\n\n"
      "Where:\n"
      "- `tool_call_name` must be an exact match to one of the available tools\n"
      "- `tool_call_arguments` must be valid JSON that strictly follows the tool's Parameters "
      "Schema\n"
      "- For multiple tool calls, chain them directly without separators or spaces",
      marks::kCallsBegin, marks::kCallBegin, marks::kSeparator, marks::kCallEnd, marks::kCallsEnd);
  return block;
}

}  // namespace ds
