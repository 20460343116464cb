#include "tools/profile/table.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "libcore/base/format.h"

namespace ds::profile {

namespace {

using nlohmann::json;

json value_of(const json& row, const Column& column) {
  const auto found = row.find(column.key);
  return found == row.end() ? json(nullptr) : *found;
}

// As in JSON, but for strings and null.
std::string exact(const json& value) {
  if (value.is_null()) return "";
  return value.is_string() ? value.get<std::string>() : value.dump();
}

std::string csv_field(const std::string& text) {
  if (text.find_first_of(",\"\r\n") == std::string::npos) return text;
  std::string quoted = "\"";
  for (const char c : text) {
    quoted += c;
    if (c == '"') quoted += c;
  }
  return quoted + '"';
}

}  // namespace

std::string shown_value(const json& row, const Column& column) {
  const json value = value_of(row, column);
  if (value.is_null() || (value.is_string() && value.get_ref<const std::string&>().empty())) {
    return "-";
  }
  if (value.is_boolean()) return value.get<bool>() ? "yes" : "no";
  if (!value.is_number()) return exact(value);
  if (column.decimals >= 0) {
    return fmt::format("{:.{}f}", value.get<double>() / column.scale, column.decimals);
  }
  return value.is_number_integer() ? format_count(value.get<std::int64_t>()) : exact(value);
}

std::string csv_table(const json& rows, const std::vector<Column>& columns) {
  std::string text;
  const auto line = [&](const auto& field) {
    for (std::size_t i = 0; i < columns.size(); ++i) {
      text += (i == 0 ? "" : ",") + csv_field(field(columns[i]));
    }
    text += "\n";
  };
  line([](const Column& column) { return column.key; });
  for (const json& row : rows) {
    line([&](const Column& column) { return exact(value_of(row, column)); });
  }
  return text;
}

std::string markdown_text(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '\r' || c == '\n') {
      out += ' ';
      continue;
    }
    if (std::string_view("\\`*_{}[]<>|#&~").find(c) != std::string_view::npos) out += '\\';
    out += c;
  }
  return out;
}

std::string markdown_table(const json& rows, const std::vector<Column>& columns) {
  std::string head = "|";
  std::string rule = "|";
  for (const Column& column : columns) {
    bool words = false;
    for (const json& row : rows) words = words || value_of(row, column).is_string();
    head += " " + markdown_text(column.title) + " |";
    rule += words ? " --- |" : " ---: |";
  }
  std::string text = head + "\n" + rule + "\n";
  for (const json& row : rows) {
    text += "|";
    for (const Column& column : columns) {
      text += " " + markdown_text(shown_value(row, column)) + " |";
    }
    text += "\n";
  }
  return text;
}

}  // namespace ds::profile
