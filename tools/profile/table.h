// Tables for other programs, for GitHub and for web pages.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <string_view>
#include <vector>

namespace ds::profile {

// A column of an array of objects. `decimals` < 0: a word or a whole number, as it is; else a
// number in units of `scale`, for people with so many decimals.
struct Column {
  std::string key;
  std::string title;
  double scale = 1.0;
  int decimals = -1;
};

// A value as people read it: "-" for null, "yes" and "no", whole numbers with separators.
std::string shown_value(const nlohmann::json& row, const Column& column);

// RFC 4180, with a line feed at the end of each line: a header of the columns' keys, then values
// unscaled in full precision; null is empty.
std::string csv_table(const nlohmann::json& rows, const std::vector<Column>& columns);
// A GitHub table; numbers to the right.
std::string markdown_table(const nlohmann::json& rows, const std::vector<Column>& columns);

// Text that Markdown shows as it is, inside a table too.
std::string markdown_text(std::string_view text);

}  // namespace ds::profile
