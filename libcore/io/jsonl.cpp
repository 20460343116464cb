#include "libcore/io/jsonl.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/utf8.h"

namespace ds {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);
// How much of an array is shown as the text of a row whose end cannot be found.
constexpr std::size_t kShownText = 200;

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

// UTF-16 is recognised by its byte order mark or by the zero byte beside a leading '{' or '['.
const char* utf16_kind(std::string_view text) {
  if (text.starts_with("\xff\xfe")) return "UTF-16LE";
  if (text.starts_with("\xfe\xff")) return "UTF-16BE";
  if (text.size() < 2) return nullptr;
  if ((text[0] == '{' || text[0] == '[') && text[1] == '\0') return "UTF-16LE";
  if (text[0] == '\0' && (text[1] == '{' || text[1] == '[')) return "UTF-16BE";
  return nullptr;
}

std::uint32_t hex4(std::string_view text) {
  if (text.size() < 4) return 0;
  std::uint32_t value = 0;
  for (const char c : text.substr(0, 4)) {
    const auto lower = static_cast<char>(c | 0x20);
    if (c >= '0' && c <= '9') {
      value = value * 16 + static_cast<std::uint32_t>(c - '0');
    } else if (lower >= 'a' && lower <= 'f') {
      value = value * 16 + static_cast<std::uint32_t>(lower - 'a') + 10;
    } else {
      return 0;
    }
  }
  return value;
}

// Offset of the first \uXXXX escape at or after `from` that is half of a surrogate pair, or kNone.
// Outside strings a backslash is a syntax error anyway.
std::size_t lone_surrogate(std::string_view text, std::size_t from) {
  for (std::size_t at = text.find('\\', from); at != kNone; at = text.find('\\', at)) {
    if (at + 1 >= text.size()) return kNone;
    if (text[at + 1] != 'u') {
      at += 2;
      continue;
    }
    const std::uint32_t unit = hex4(text.substr(at + 2));
    if (unit < 0xd800 || unit > 0xdfff) {
      at += 2;
      continue;
    }
    if (unit >= 0xdc00 || text.size() < at + 12 || text[at + 6] != '\\' || text[at + 7] != 'u') {
      return at;
    }
    const std::uint32_t second = hex4(text.substr(at + 8));
    if (second < 0xdc00 || second > 0xdfff) return at;
    at += 12;
  }
  return kNone;
}

enum class ScanEnd { kElement, kMismatch, kOpenString, kFileEnd };
struct Scan {
  ScanEnd end = ScanEnd::kElement;
  std::size_t at = 0;  // one past the element, or where the problem is
};

// Where the array element that begins at `at` ends: before the ',' or ']' at its own level. Knows
// strings and brackets only; whether it is JSON is the parser's business.
Scan scan_element(std::string_view text, std::size_t at) {
  std::vector<char> open;  // closing brackets wanted, down to the depth that can be valid
  std::size_t depth = 0;
  for (; at < text.size(); ++at) {
    switch (text[at]) {
      case '"': {
        const std::size_t quote = at;
        for (++at;; ++at) {
          if (at >= text.size()) return {ScanEnd::kOpenString, quote};
          if (text[at] == '"') break;
          if (text[at] == '\\') {
            ++at;
          } else if (text[at] == '\n') {
            return {ScanEnd::kOpenString, quote};
          }
        }
        break;
      }
      case '{':
      case '[':
        if (depth < static_cast<std::size_t>(kJsonDepthLimit)) {
          open.push_back(text[at] == '{' ? '}' : ']');
        }
        ++depth;
        break;
      case '}':
      case ']':
        if (depth == 0) {
          if (text[at] == ']') return {ScanEnd::kElement, at};
          return {ScanEnd::kMismatch, at};
        }
        if (--depth < open.size()) {
          if (open.back() != text[at]) return {ScanEnd::kMismatch, at};
          open.pop_back();
        }
        break;
      case ',':
        if (depth == 0) return {ScanEnd::kElement, at};
        break;
      default:
        break;
    }
  }
  return {ScanEnd::kFileEnd, text.size()};
}

}  // namespace

JsonRowReader::JsonRowReader(const std::filesystem::path& path, EncodingPolicy policy)
    : file_(path), policy_(policy) {
  text_ = {reinterpret_cast<const char*>(file_.data()), file_.size()};
  start(path.string());
}

JsonRowReader::JsonRowReader(std::string_view text, const std::string& name, EncodingPolicy policy)
    : text_(text), policy_(policy) {
  start(name);
}

void JsonRowReader::start(const std::string& name) {
  if (const char* kind = utf16_kind(text_)) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: the file is {}, UTF-8 is needed", name, kind),
                fmt::format("convert it: iconv -f {} -t UTF-8 FILE > NEW", kind));
  }
  if (text_.starts_with("\xef\xbb\xbf")) position_ = line_start_ = 3;
  skip_space();
  if (position_ == text_.size()) {
    throw Error(ExitCode::kBadInput, name + ": the file has no rows (it is empty)");
  }
  array_ = text_[position_] == '[';
  if (array_) ++position_;
}

void JsonRowReader::skip_space() {
  for (; position_ < text_.size() && is_space(text_[position_]); ++position_) {
    if (text_[position_] == '\n') {
      ++line_;
      line_start_ = position_ + 1;
    }
  }
}

struct JsonRowReader::Target {
  nlohmann::json* plain = nullptr;
  nlohmann::ordered_json* ordered = nullptr;
  std::optional<JsonProblem> parse(std::string_view text) {
    return plain != nullptr ? try_parse_json(text, true, *plain)
                            : try_parse_json(text, true, *ordered);
  }
};

bool JsonRowReader::next(nlohmann::json& value, JsonRow& row) {
  value = nullptr;
  Target target{&value, nullptr};
  return next_row(target, row);
}

bool JsonRowReader::next(nlohmann::ordered_json& value, JsonRow& row) {
  value = nullptr;
  Target target{nullptr, &value};
  return next_row(target, row);
}

bool JsonRowReader::next_row(Target& value, JsonRow& row) {
  row = JsonRow();
  if (failed_) return false;
  return array_ ? next_element(value, row) : next_line(value, row);
}

void JsonRowReader::locate(std::size_t offset, JsonRow& row) const {
  const std::string_view before = text_.substr(line_start_, offset - line_start_);
  const std::size_t newline = before.rfind('\n');
  const std::size_t column = newline == kNone ? before.size() + 1 : before.size() - newline;
  row.column = static_cast<std::int64_t>(column);
  if (newline != kNone) {
    row.reason +=
        fmt::format(" (on line {})", line_ + std::count(before.begin(), before.end(), '\n'));
  }
}

// Parses one row's text, which begins at `offset` of the file on line line_.
void JsonRowReader::parse(std::string_view text, std::size_t offset, Target& value, JsonRow& row) {
  row.text = text;
  std::string repaired;
  if (const std::size_t at = utf8_error(text); at != kUtf8Valid) {
    row.encoding = true;
    row.reason = fmt::format("invalid UTF-8: byte 0x{:02X} at byte offset {} of the file",
                             static_cast<unsigned char>(text[at]), offset + at);
    locate(offset + at, row);
    if (looks_like_gbk(text)) {
      row.reason += "; the text looks like GBK (convert it: iconv -f GB18030 -t UTF-8)";
    }
    if (policy_ != EncodingPolicy::kReplace) return;
    row.repaired = true;
    repaired = utf8_replace(text);
    text = repaired;
  }
  if (std::size_t at = lone_surrogate(text, 0); at != kNone) {
    if (!row.encoding) {
      row.reason = "lone surrogate escape " + quote_text(text.substr(at, 6));
      locate(offset + at, row);
    }
    row.encoding = true;
    if (policy_ != EncodingPolicy::kReplace) return;
    row.repaired = true;
    if (repaired.empty()) repaired.assign(text);
    for (; at != kNone; at = lone_surrogate(repaired, at + 6)) repaired.replace(at, 6, "\\ufffd");
    text = repaired;
  }
  auto problem = value.parse(text);
  if (!problem) return;
  const bool exact = !row.repaired;
  row.repaired = false;
  row.encoding = false;
  row.reason = std::move(problem->reason);
  row.column = 0;
  if (exact) locate(offset + problem->offset, row);
}

bool JsonRowReader::next_line(Target& value, JsonRow& row) {
  skip_space();
  if (position_ >= text_.size()) return false;
  const std::size_t begin = position_;
  std::size_t end = text_.find('\n', begin);
  if (end == kNone) end = text_.size();
  std::size_t last = end;
  while (last > begin && is_space(text_[last - 1])) --last;
  row.line = line_;
  const std::string_view text = text_.substr(begin, last - begin);
  parse(text, begin, value, row);
  if (first_ && !row.good() && (text == "{" || text == "[")) {
    row.reason +=
        " (each row must be on one line of its own; rows that span lines must be in an array)";
  }
  first_ = false;
  position_ = end;
  return true;
}

void JsonRowReader::stop(std::size_t offset, const std::string& reason, JsonRow& row) {
  failed_ = true;
  row.reason = reason;
  locate(offset, row);
  row.reason += "; nothing after it can be read";
}

// Behind the closing ']': the end, or text that should not be there.
bool JsonRowReader::after_array(JsonRow& row) {
  if (position_ >= text_.size()) return false;
  row.line = line_;
  row.text = text_.substr(position_, kShownText);
  stop(position_, "text after the closing ']' of the array", row);
  return true;
}

bool JsonRowReader::next_element(Target& value, JsonRow& row) {
  skip_space();
  if (first_ && position_ < text_.size() && text_[position_] == ']') {
    ++position_;
    array_ended_ = true;
    skip_space();
  }
  first_ = false;
  if (array_ended_) return after_array(row);
  row.line = line_;
  const std::size_t begin = position_;
  const Scan scan = scan_element(text_, begin);
  if (scan.end != ScanEnd::kElement) {
    row.text = text_.substr(begin, kShownText);
    std::string reason = "the file ends inside the array (truncated, or a ']' is missing)";
    if (scan.end == ScanEnd::kMismatch) {
      reason = "brackets do not match: " + quote_text(text_.substr(scan.at, 1));
    } else if (scan.end == ScanEnd::kOpenString) {
      reason = "a string without its closing quote, or with a line break inside";
    }
    stop(scan.at, reason, row);
    return true;
  }
  std::size_t last = scan.at;
  while (last > begin && is_space(text_[last - 1])) --last;
  if (last == begin) {
    row.reason = text_[scan.at] == ']' ? "a comma before the closing ']'"
                                       : "an element is missing before ','";
    locate(scan.at, row);
  } else {
    parse(text_.substr(begin, last - begin), begin, value, row);
  }
  const std::string_view passed = text_.substr(begin, scan.at - begin);
  if (const std::size_t newline = passed.rfind('\n'); newline != kNone) {
    line_ += std::count(passed.begin(), passed.end(), '\n');
    line_start_ = begin + newline + 1;
  }
  position_ = scan.at + 1;
  array_ended_ = text_[scan.at] == ']';
  return true;
}

}  // namespace ds
