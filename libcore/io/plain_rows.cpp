#include "libcore/io/plain_rows.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string_view>
#include <unordered_map>
#include <utility>

#include "libcore/base/error.h"
#include "libcore/base/format.h"

namespace ds {
namespace {

constexpr std::size_t kNone = std::string_view::npos;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

bool is_blank(std::string_view text) { return text.find_first_not_of(" \t\r\n") == kNone; }

void start(TextWindow& window, const std::string& name) {
  window.need(kByteOrderMark.size());
  refuse_utf16(window.view(), name);
  if (window.view().starts_with(kByteOrderMark)) window.drop(kByteOrderMark.size());
}

[[noreturn]] void refuse_empty(const std::string& name) {
  throw Error(ExitCode::kBadInput, name + ": the file has no rows (it is empty)");
}

// Where the record at the window's begin ends (its line break, or the end of the input); nullopt:
// a quote is not closed.
std::optional<std::size_t> record_end(TextWindow& window) {
  bool quoted = false;
  for (std::size_t at = 0;; ++at) {
    while (at >= window.view().size()) {
      if (window.view().size() > CsvRowReader::kMostRecordBytes) return std::nullopt;
      if (!window.more()) return quoted ? std::nullopt : std::optional(window.view().size());
    }
    const char c = window.view()[at];
    if (c == '"') quoted = !quoted;
    if (c == '\n' && !quoted) return at;
  }
}

std::size_t line_end(TextWindow& window) {
  std::size_t from = 0;
  std::size_t end = kNone;
  while ((end = window.view().find('\n', from)) == kNone) {
    from = window.view().size();
    if (from > JsonRowReader::kMostRowBytes || !window.more()) return from;
  }
  return end;
}

// The fields of a record; `problem` gets the offset of a quote out of place.
std::vector<std::string> split_record(std::string_view text, std::optional<std::size_t>& problem) {
  std::vector<std::string> fields;
  std::size_t at = 0;
  while (true) {
    std::string& field = fields.emplace_back();
    if (at < text.size() && text[at] == '"') {
      for (++at; at < text.size(); ++at) {
        if (text[at] != '"') {
          field += text[at];
        } else if (at + 1 < text.size() && text[at + 1] == '"') {
          field += text[at++];
        } else {
          break;
        }
      }
      ++at;
      if (at < text.size() && text[at] != ',' && !problem) problem = at;
    }
    const std::size_t comma = std::min(text.find(',', at), text.size());
    if (at < comma) field += text.substr(at, comma - at);
    if (comma >= text.size()) return fields;
    at = comma + 1;
  }
}

}  // namespace

CsvRowReader::CsvRowReader(TextWindow window, const std::string& name)
    : window_(std::move(window)) {
  start(window_, name);
  line_start_ = window_.base();
  JsonRow row;
  if (!next_text(row)) refuse_empty(name);
  std::string repaired;
  std::optional<std::size_t> problem;
  if (row.good())
    header_ = split_record(checked_row_text(row, EncodingPolicy::kSkip, false, repaired), problem);
  if (row.good() && problem) row.reason = "a quote inside a field that does not begin with one";
  if (!row.good()) {
    throw Error(ExitCode::kBadInput,
                fmt::format("{}: line {}: {}, the names of the columns are needed", name, row.line,
                            row.reason));
  }
  std::unordered_map<std::string_view, std::size_t> places;
  std::string names;
  for (std::size_t i = 0; i < header_.size(); ++i) {
    const auto [at, fresh] = places.try_emplace(header_[i], columns_.size());
    if (fresh) columns_.push_back({i, i});
    columns_[at->second].field = i;
    names += (i == 0 ? "" : ",") + header_[i];
  }
  header_text_ = quote_text(names);
}

bool CsvRowReader::next_text(JsonRow& row) {
  row = JsonRow();
  while (true) {
    std::optional<std::size_t> end = record_end(window_);
    row.line = line_;
    row.line_start = line_start_;
    row.offset = window_.base();
    if (!end) {
      row.reason = "a quote that is not closed";
      const std::size_t quote = window_.view().find('"');
      end = line_end(window_);
      row.column = static_cast<std::int64_t>(row.offset + quote - row.line_start) + 1;
    }
    if (*end == 0 && window_.view().empty()) return false;
    std::string_view text = window_.view().substr(0, *end);
    line_ += std::count(text.begin(), text.end(), '\n') + 1;
    const bool last = *end == window_.view().size();
    window_.drop(last ? *end : *end + 1);
    line_start_ = window_.base();
    while (text.ends_with('\r')) text.remove_suffix(1);
    row.text = text;
    if (!is_blank(text)) return true;
    row.reason.clear();
  }
}

void CsvRowReader::parse(JsonRow& row, EncodingPolicy policy, nlohmann::ordered_json& value) const {
  value = nullptr;
  std::string repaired;
  const std::string_view text = checked_row_text(row, policy, false, repaired);
  if (!row.good()) return;
  std::optional<std::size_t> problem;
  std::vector<std::string> fields = split_record(text, problem);
  const bool many = fields.size() != header_.size();
  if (problem || many) {
    const bool exact = !row.repaired;
    row.repaired = row.encoding = false;
    row.column = 0;
    row.reason = problem ? "a quoted field goes on behind its closing quote"
                         : fmt::format("{} fields, {} are needed ({})", fields.size(),
                                       header_.size(), header_text_);
    if (problem && exact) locate_in_row(*problem, row);
    return;
  }
  value = nlohmann::ordered_json::object();
  // value[name] would search the members from the front for every field.
  auto& members = *value.get_ptr<nlohmann::ordered_json::object_t*>();
  members.reserve(columns_.size());
  for (const auto& [name, field] : columns_) {
    members.emplace_back(header_[name], std::move(fields[field]));
  }
}

LineRowReader::LineRowReader(TextWindow window, const std::string& name)
    : window_(std::move(window)) {
  start(window_, name);
  window_.need(1);
  if (window_.view().empty()) refuse_empty(name);
}

bool LineRowReader::next_text(JsonRow& row) {
  row = JsonRow();
  while (true) {
    window_.need(1);
    if (window_.view().empty()) return false;
    const std::size_t end = line_end(window_);
    row.line = line_;
    row.offset = row.line_start = window_.base();
    row.text = window_.view().substr(0, end);
    const bool whole = end < window_.view().size();
    if (whole) ++line_;
    window_.drop(whole ? end + 1 : end);
    while (row.text.ends_with('\r')) row.text.remove_suffix(1);
    if (!is_blank(row.text)) return true;
  }
}

void LineRowReader::parse(JsonRow& row, EncodingPolicy policy, nlohmann::ordered_json& value) {
  value = nullptr;
  std::string repaired;
  const std::string_view text = checked_row_text(row, policy, false, repaired);
  if (row.good()) value = {{"text", text}};
}

}  // namespace ds
