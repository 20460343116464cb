// JSON as Python's json module writes it.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>

namespace ds {

// json.dumps(value, ensure_ascii=...) with Python's default separators; key order kept.
std::string python_json(const nlohmann::ordered_json& value, bool ensure_ascii);

// json.dumps(json.loads(text), ensure_ascii=...): as above, but integers of any size are kept.
// Throws Error(kBadInput) that begins with `name` when `text` is no JSON value.
std::string python_json_text(std::string_view text, const std::string& name, bool ensure_ascii);

}  // namespace ds
