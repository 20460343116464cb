#include "libcore/data/row_source.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>
#include <utility>

#include "libcore/base/error.h"

namespace ds {

RowSource::RowSource(const std::filesystem::path& path, EncodingPolicy policy)
    : reader_(path, policy), name_(path.string()), policy_(policy) {}

RowSource::RowSource(std::string_view text, const std::string& name, EncodingPolicy policy)
    : reader_(text, name, policy), name_(name), policy_(policy) {}

bool RowSource::next(SourceRow& result) {
  result = SourceRow();
  nlohmann::ordered_json value;
  JsonRow json;
  if (!reader_.next(value, json)) return false;
  result.line = json.line;
  result.column = json.column;
  if (!json.good()) {
    if (json.encoding && policy_ == EncodingPolicy::kError) {
      throw Error(
          ExitCode::kBadInput,
          fmt::format("{}: line {}, column {}: {}", name_, json.line, json.column, json.reason),
          "repair the file, or choose another policy for such bytes: replace or skip");
    }
    const bool surrogate = json.encoding && json.reason.starts_with("lone surrogate");
    result.row.problem = {!json.encoding ? "invalid_json"
                          : surrogate    ? "lone_surrogate"
                                         : "invalid_utf8",
                          "", std::move(json.reason)};
    return true;
  }
  const std::optional<DataFormat> format = format_ ? format_ : detect_format(value);
  if (!format) {
    result.row.problem = {"unknown_format", "",
                          describe_keys(value) +
                              ": no format has these (messages | conversations | instruction, "
                              "output | prompt, completion | text | input_ids is needed)"};
    if (!value.is_object() && !value.is_array()) result.row.problem.kind = "bad_type";
    return true;
  }
  if (format_ && !has_format(value, *format_)) {
    const auto other = detect_format(value);
    result.row.problem = {
        value.is_object() || value.is_array() ? "other_format" : "bad_type", "",
        fmt::format("{}{}, but the file's rows are of format {}", describe_keys(value),
                    other ? fmt::format(" (format {})", data_format_name(*other)) : "",
                    data_format_name(*format_))};
    return true;
  }
  result.row = convert_row(value, *format);
  if (!result.row.content) {
    result.column = 0;
    return true;
  }
  format_ = format;
  if (json.repaired) {
    result.row.repairs.insert(result.row.repairs.begin(),
                              {"replaced_bytes", "", std::move(json.reason)});
  }
  return true;
}

}  // namespace ds
