#include "libcore/data/row_fields.h"

#include <fmt/format.h>

#include <utility>

#include "libcore/base/format.h"

namespace ds::rows {

void drop(std::string kind, std::string field, const std::string& found_and_needed) {
  std::string reason = field.empty() ? found_and_needed : field + ": " + found_and_needed;
  throw BadRow{{std::move(kind), std::move(field), std::move(reason)}};
}

std::string describe_value(const Json& value) {
  switch (value.type()) {
    case Json::value_t::null:
      return "null";
    case Json::value_t::object:
      return "an object";
    case Json::value_t::array:
      return fmt::format("a list of {}", value.size());
    case Json::value_t::string:
      return "the text " + quote_text(value.get_ref<const std::string&>(), 60);
    case Json::value_t::boolean:
      return value.get<bool>() ? "true" : "false";
    default:
      return "the number " + value.dump(-1, ' ', false, Json::error_handler_t::replace);
  }
}

const Json* member(const Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  for (const auto& [name, value] : object.get_ref<const Json::object_t&>()) {
    if (name == key) return &value;
  }
  return nullptr;
}

const Json* find(const Json& object, std::string_view key) {
  const Json* value = member(object, key);
  return value == nullptr || value->is_null() ? nullptr : value;
}

Json* find(Json& object, std::string_view key) {
  if (!object.is_object()) return nullptr;
  for (auto& [name, value] : object.get_ref<Json::object_t&>()) {
    if (name == key) return value.is_null() ? nullptr : &value;
  }
  return nullptr;
}

std::string need_text(const Json& object, std::string_view key, std::string_view prefix) {
  const Json* value = member(object, key);
  if (value != nullptr && value->is_string()) return value->get_ref<const std::string&>();
  const std::string field = std::string(prefix) + std::string(key);
  if (value == nullptr) drop("missing_field", field, "missing, a text is needed");
  if (value->is_null()) drop("null_content", field, "null, a text is needed");
  drop("bad_type", field, describe_value(*value) + ", a text is needed");
}

std::string optional_text(const Json& object, std::string_view key) {
  const Json* value = find(object, key);
  if (value == nullptr) return "";
  if (!value->is_string()) {
    drop("bad_type", std::string(key), describe_value(*value) + ", a text is needed");
  }
  return value->get<std::string>();
}

bool is_blank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\v\f") == std::string_view::npos;
}

}  // namespace ds::rows
