#include "libcore/io/jsonl.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/base/format.h"
#include "libcore/base/json.h"
#include "libcore/base/utf8.h"
#include "libcore/io/json_fast.h"

namespace ds {
namespace {

constexpr std::size_t kNone = static_cast<std::size_t>(-1);
// How much of a file is shown as the text of a row whose end cannot be found.
constexpr std::size_t kShownText = 200;
constexpr std::size_t kMostKeyBytes = 1u << 20;

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

enum class ScanEnd { kElement, kMismatch, kOpenString, kOpen };

// Where an element ends: before the ',' or the closing bracket at its own level. Knows strings and
// brackets only; whether it is JSON is the parser's business. Goes on where the text ended.
class ElementScan {
 public:
  explicit ElementScan(char close) : close_(close) {}
  // One past the element, or where the problem is.
  std::size_t at() const { return at_; }
  // kOpen: the text ends before the element does.
  ScanEnd run(std::string_view text) {
    for (; at_ < text.size(); ++at_) {
      if (quote_ != kNone) {
        if (!pass_string(text)) return at_ < text.size() ? open_string() : ScanEnd::kOpen;
        continue;
      }
      switch (text[at_]) {
        case '"':
          quote_ = at_;
          break;
        case '{':
        case '[':
          if (depth_ < static_cast<std::size_t>(kJsonDepthLimit)) {
            open_.push_back(text[at_] == '{' ? '}' : ']');
          }
          ++depth_;
          break;
        case '}':
        case ']':
          if (depth_ == 0) return text[at_] == close_ ? ScanEnd::kElement : ScanEnd::kMismatch;
          if (--depth_ < open_.size()) {
            if (open_.back() != text[at_]) return ScanEnd::kMismatch;
            open_.pop_back();
          }
          break;
        case ',':
          if (depth_ == 0) return ScanEnd::kElement;
          break;
        default:
          break;
      }
    }
    return ScanEnd::kOpen;
  }
  bool in_string() const { return quote_ != kNone; }
  ScanEnd open_string() {
    at_ = quote_;
    return ScanEnd::kOpenString;
  }

 private:
  // Inside a string: steps to its closing quote. False when that is not to be found (yet).
  bool pass_string(std::string_view text) {
    for (; at_ < text.size(); ++at_) {
      if (!escaped_) at_ += json_plain_prefix(text.substr(at_));
      if (at_ == text.size()) return false;
      const char c = text[at_];
      if (escaped_) {
        escaped_ = false;
      } else if (c == '"') {
        quote_ = kNone;
        return true;
      } else if (c == '\\') {
        escaped_ = true;
      } else if (c == '\n') {
        return false;
      }
    }
    return false;
  }

  char close_;
  std::vector<char> open_;  // closing brackets wanted, down to the depth that can be valid
  std::size_t depth_ = 0;
  std::size_t at_ = 0;
  std::size_t quote_ = kNone;
  bool escaped_ = false;
};

void locate_in(std::string_view text, std::size_t at, JsonRow& row) {
  const std::string_view before = text.substr(0, at);
  const std::size_t newline = before.rfind('\n');
  const std::size_t column =
      newline == kNone ? row.offset + at - row.line_start + 1 : before.size() - newline;
  row.column = static_cast<std::int64_t>(column);
  if (newline != kNone) {
    row.reason +=
        fmt::format(" (on line {})", row.line + std::count(before.begin(), before.end(), '\n'));
  }
}

bool parse_fast(std::string_view, nlohmann::json&) { return false; }
bool parse_fast(std::string_view text, nlohmann::ordered_json& value) {
  return parse_json_fast(text, value);
}

template <class Json>
void parse_row(JsonRow& row, EncodingPolicy policy, Json& value) {
  std::string repaired;
  const std::string_view text = checked_row_text(row, policy, true, repaired);
  if (row.good() && parse_fast(text, value)) return;
  value = nullptr;
  if (!row.good()) return;
  auto problem = try_parse_json(text, value, row.twice);
  if (!problem) return;
  const bool exact = !row.repaired;
  row.repaired = false;
  row.encoding = false;
  row.reason = std::move(problem->reason);
  row.column = 0;
  if (exact) locate_in(row.text, problem->offset, row);
  if (row.text == "{" || row.text == "[") {
    row.reason +=
        " (each row must be on one line of its own; rows that span lines must be in an array)";
  }
}

}  // namespace

void locate_in_row(std::size_t at, JsonRow& row) { locate_in(row.text, at, row); }

std::string_view checked_row_text(JsonRow& row, EncodingPolicy policy, bool escapes,
                                  std::string& repaired) {
  std::string_view text = row.text;
  if (const std::size_t at = utf8_error(text); at != kUtf8Valid) {
    row.encoding = true;
    row.reason = fmt::format("invalid UTF-8: byte 0x{:02X} at byte offset {} of the file",
                             static_cast<unsigned char>(text[at]), row.offset + at);
    locate_in(text, at, row);
    if (looks_like_gbk(text)) {
      row.reason += "; the text looks like GBK (convert it: iconv -f GB18030 -t UTF-8)";
    }
    if (policy != EncodingPolicy::kReplace) return {};
    row.repaired = true;
    repaired = utf8_replace(text);
    text = repaired;
  }
  if (!escapes) return text;
  std::size_t at = lone_surrogate(text, 0);
  if (at == kNone) return text;
  if (!row.encoding) {
    row.reason = "lone surrogate escape " + quote_text(text.substr(at, 6));
    locate_in(text, at, row);
  }
  row.encoding = true;
  if (policy != EncodingPolicy::kReplace) return {};
  row.repaired = true;
  if (repaired.empty()) repaired.assign(text);
  for (; at != kNone; at = lone_surrogate(repaired, at + 6)) repaired.replace(at, 6, "\\ufffd");
  return repaired;
}

void parse_json_row(JsonRow& row, EncodingPolicy policy, nlohmann::json& value) {
  parse_row(row, policy, value);
}

void parse_json_row(JsonRow& row, EncodingPolicy policy, nlohmann::ordered_json& value) {
  parse_row(row, policy, value);
}

void refuse_utf16(std::string_view head, const std::string& name) {
  if (const char* kind = utf16_kind(head)) {
    throw Error(ExitCode::kBadInput, fmt::format("{}: the file is {}, UTF-8 is needed", name, kind),
                fmt::format("convert it: iconv -f {} -t UTF-8 FILE > NEW", kind));
  }
}

JsonRowReader::JsonRowReader(const std::filesystem::path& path, EncodingPolicy policy)
    : window_(path), policy_(policy) {
  start(path.string());
}

JsonRowReader::JsonRowReader(std::string_view text, const std::string& name, EncodingPolicy policy)
    : window_(text), policy_(policy) {
  start(name);
}

JsonRowReader::JsonRowReader(TextWindow window, const std::string& name, EncodingPolicy policy)
    : window_(std::move(window)), policy_(policy) {
  start(name);
}

void JsonRowReader::start(const std::string& name) {
  window_.need(3);
  refuse_utf16(window_.view(), name);
  if (window_.view().starts_with("\xef\xbb\xbf")) {
    window_.drop(3);
    line_start_ = 3;
  }
  const char first = skip_space();
  if (window_.view().empty()) {
    throw Error(ExitCode::kBadInput, name + ": the file has no rows (it is empty)");
  }
  if (first == '[') layout_ = JsonLayout::kArray;
}

// The next byte that is no white space, 0 at the end of the input.
char JsonRowReader::skip_space() {
  do {
    const std::string_view text = window_.view();
    std::size_t at = 0;
    for (; at < text.size() && is_space(text[at]); ++at) {
      if (text[at] == '\n') {
        ++line_;
        line_start_ = window_.base() + at + 1;
      }
    }
    window_.drop(at);
    if (at < text.size()) return text[at];
  } while (window_.more());
  return '\0';
}

// Steps over `count` bytes and the lines in them.
void JsonRowReader::pass(std::size_t count) {
  const std::string_view passed = window_.view().substr(0, count);
  if (const std::size_t newline = passed.rfind('\n'); newline != kNone) {
    line_ += std::count(passed.begin(), passed.end(), '\n');
    line_start_ = window_.base() + newline + 1;
  }
  window_.drop(count);
}

template <class Json>
bool JsonRowReader::next_value(Json& value, JsonRow& row) {
  value = nullptr;
  if (!next_text(row)) return false;
  if (row.good()) parse_json_row(row, policy_, value);
  return true;
}

bool JsonRowReader::next(nlohmann::json& value, JsonRow& row) { return next_value(value, row); }

bool JsonRowReader::next(nlohmann::ordered_json& value, JsonRow& row) {
  return next_value(value, row);
}

bool JsonRowReader::next_text(JsonRow& row) {
  row = JsonRow();
  if (failed_) return false;
  return layout_ == JsonLayout::kLines ? next_line(row) : next_element(row);
}

void JsonRowReader::begin_row(JsonRow& row) const {
  row.line = line_;
  row.line_start = line_start_;
  row.offset = window_.base();
}

bool JsonRowReader::next_line(JsonRow& row) {
  while (skips_line_) {
    const std::size_t end = window_.view().find('\n');
    skips_line_ = end == kNone;
    window_.drop(skips_line_ ? window_.view().size() : end);
    if (skips_line_ && !window_.more()) return false;
  }
  if (skip_space() == '\0' && window_.view().empty()) return false;
  begin_row(row);
  std::size_t end = kNone;
  std::size_t from = 0;
  while ((end = window_.view().find('\n', from)) == kNone) {
    from = window_.view().size();
    if (from > kMostRowBytes) {
      row.reason = fmt::format("a line of more than {} MiB", kMostRowBytes >> 20);
      row.text = window_.view().substr(0, kShownText);
      skips_line_ = true;
      return true;
    }
    if (!window_.more()) {
      end = from;
      break;
    }
  }
  const std::string_view text = window_.view();
  std::size_t last = end;
  while (last > 0 && is_space(text[last - 1])) --last;
  row.text = text.substr(0, last);
  window_.drop(end);
  return true;
}

void JsonRowReader::stop(std::size_t at, const std::string& reason, JsonRow& row) {
  failed_ = true;
  row.text = window_.view().substr(0, kShownText);
  row.reason = reason;
  locate_in(window_.view(), at, row);
  row.reason += "; nothing after it can be read";
}

// Behind a closing bracket.
void JsonRowReader::close_level() {
  ended_ = !in_list_;
  wants_separator_ = in_list_;
  in_list_ = false;
}

bool JsonRowReader::next_element(JsonRow& row) {
  if (!opened_) {
    pass(1);
    opened_ = first_ = true;
  }
  while (true) {
    const char c = skip_space();
    begin_row(row);
    if (ended_) {
      // The end, or text that should not be there.
      if (window_.view().empty()) return false;
      stop(0,
           layout_ == JsonLayout::kArray ? "text after the closing ']' of the array"
                                         : "text after the closing '}' of the object",
           row);
      return true;
    }
    const bool in_object =
        layout_ == JsonLayout::kMembers || (layout_ == JsonLayout::kLists && !in_list_);
    const char close = in_object ? '}' : ']';
    if ((first_ || wants_separator_) && c == close) {
      pass(1);
      first_ = wants_separator_ = false;
      close_level();
      continue;
    }
    first_ = false;
    if (wants_separator_) {
      if (c != ',') {
        stop(0, "',' or '}' is needed behind a list", row);
        return true;
      }
      wants_separator_ = false;
      pass(1);
      continue;
    }
    if (in_object) {
      if (!read_key(row)) return true;
      const char value = skip_space();
      begin_row(row);
      if (layout_ == JsonLayout::kLists && value == '[') {
        pass(1);
        in_list_ = first_ = true;
        continue;
      }
    }
    row.key = key_;
    read_element(close, row);
    return true;
  }
}

// The name of a member and its colon. False when there is a problem instead, told in `row`.
bool JsonRowReader::read_key(JsonRow& row) {
  if (skip_space() == '}') {
    row.reason = "a comma before the closing '}'";
    locate_in(window_.view(), 0, row);
    pass(1);
    ended_ = true;
    return false;
  }
  if (window_.view().empty() || window_.view()[0] != '"') {
    stop(0, "no name of a member, one in quotes is needed", row);
    return false;
  }
  std::size_t at = 1;
  while (true) {
    if (at >= window_.view().size() && !window_.more()) break;
    const char c = window_.view()[at];
    if (c == '"' || c == '\n' || at > kMostKeyBytes) break;
    at += c == '\\' ? 2 : 1;
  }
  if (at >= window_.view().size() || window_.view()[at] != '"') {
    stop(0, "the name of a member without its closing quote", row);
    return false;
  }
  key_ = window_.view().substr(1, at - 1);
  pass(at + 1);
  if (skip_space() != ':') {
    stop(0, "no ':' behind the name of a member", row);
    return false;
  }
  pass(1);
  return true;
}

// The text of an element that begins here, and the separator behind it.
void JsonRowReader::read_element(char close, JsonRow& row) {
  ElementScan scan(close);
  ScanEnd end = ScanEnd::kOpen;
  while ((end = scan.run(window_.view())) == ScanEnd::kOpen) {
    if (window_.view().size() > kMostRowBytes) {
      stop(0, fmt::format("a row of more than {} MiB", kMostRowBytes >> 20), row);
      return;
    }
    if (!window_.more()) break;
  }
  if (end == ScanEnd::kOpen && scan.in_string()) end = scan.open_string();
  const std::string_view text = window_.view();
  const std::size_t at = scan.at();
  if (end == ScanEnd::kMismatch) {
    stop(at, "brackets do not match: " + quote_text(text.substr(at, 1)), row);
  } else if (end == ScanEnd::kOpenString) {
    stop(at, "a string without its closing quote, or with a line break inside", row);
  } else if (end == ScanEnd::kOpen) {
    const bool array = layout_ == JsonLayout::kArray;
    stop(at,
         fmt::format("the file ends inside the {} (truncated, or a '{}' is missing)",
                     array ? "array" : "object", array ? ']' : '}'),
         row);
  }
  if (failed_) return;
  std::size_t last = at;
  while (last > 0 && is_space(text[last - 1])) --last;
  row.text = text.substr(0, last);
  const bool closed = text[at] == close;
  if (last == 0) {
    row.reason = closed ? fmt::format("a comma before the closing '{}'", close)
                        : "an element is missing before ','";
    locate_in(text, at, row);
  }
  pass(at + 1);
  if (closed) close_level();
}

}  // namespace ds
