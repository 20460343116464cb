// The tools block that is appended to the system text (reference/text.md section 5).
#pragma once

#include <string>
#include <string_view>

namespace ds {

// As on the V3.1 model card: parameters as Python's json.dumps writes them, doubled braces around
// additional_tool_calls. `tools_json` is a list of {"type": "function", "function": {"name",
// "description", "parameters"}} or of the inner objects. No line break at the end. Throws
// Error(kBadInput) naming the tool.
std::string tools_block(std::string_view tools_json);

}  // namespace ds
