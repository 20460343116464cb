#include "libcore/text/json_scan.h"

#include <fmt/format.h>

#include "libcore/base/error.h"
#include "libcore/base/json.h"
#include "libcore/base/utf8.h"

namespace ds {
namespace {

bool is_scalar(char c) {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || c == '-' || c == '+' || c == '.' ||
         c == 'E';
}

}  // namespace

void JsonScan::fail(const std::string& found_and_needed) const {
  throw Error(ExitCode::kBadInput, fmt::format("{}: byte {}: {}", name_, at_, found_and_needed),
              "The file is damaged or cut short; download it again.");
}

void JsonScan::fail_expected(char token) const {
  if (at_ >= text_.size()) fail(fmt::format("the end of the text, '{}' is needed", token));
  fail(fmt::format("0x{:02x}, '{}' is needed", static_cast<unsigned char>(text_[at_]), token));
}

std::string_view JsonScan::string(std::string& scratch) {
  expect('"');
  const std::size_t begin = at_;
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '"') return text_.substr(begin, at_++ - begin);
    if (c == '\\') return escaped_string(begin, scratch);
    if (static_cast<unsigned char>(c) < 0x20) fail("a control character inside a string");
    ++at_;
  }
  fail("the end of the text inside a string");
}

std::uint32_t JsonScan::hex4(std::size_t at) const {
  std::uint32_t value = 0;
  for (std::size_t i = at; i < at + 4; ++i) {
    const char c = i < text_.size() ? text_[i] : '\0';
    value <<= 4;
    if (c >= '0' && c <= '9') {
      value |= static_cast<std::uint32_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value |= static_cast<std::uint32_t>(c - 'a' + 10);
    } else if (c >= 'A' && c <= 'F') {
      value |= static_cast<std::uint32_t>(c - 'A' + 10);
    } else {
      fail("a \\u escape without four hexadecimal digits");
    }
  }
  return value;
}

std::string_view JsonScan::escaped_string(std::size_t begin, std::string& scratch) {
  scratch.assign(text_, begin, at_ - begin);
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '"') {
      ++at_;
      return scratch;
    }
    if (static_cast<unsigned char>(c) < 0x20) fail("a control character inside a string");
    ++at_;
    if (c != '\\') {
      scratch += c;
      continue;
    }
    constexpr std::string_view kCodes = "\"\\/bfnrt";
    constexpr std::string_view kValues = "\"\\/\b\f\n\r\t";
    const char code = at_ < text_.size() ? text_[at_] : '\0';
    if (const std::size_t known = kCodes.find(code); known != std::string_view::npos) {
      scratch += kValues[known];
      ++at_;
      continue;
    }
    if (code != 'u') fail("an unknown escape inside a string");
    std::uint32_t value = hex4(at_ + 1);
    at_ += 5;
    const bool high = value >= 0xd800 && value < 0xdc00;
    if (high && text_.substr(at_, 2) == "\\u") {
      const std::uint32_t low = hex4(at_ + 2);
      if (low >= 0xdc00 && low < 0xe000) {
        value = 0x10000 + ((value - 0xd800) << 10) + (low - 0xdc00);
        at_ += 6;
      }
    }
    append_utf8(scratch, value);
  }
  fail("the end of the text inside a string");
}

std::int32_t JsonScan::small_integer() {
  skip_space();
  std::int64_t value = 0;
  const std::size_t begin = at_;
  while (at_ < text_.size() && text_[at_] >= '0' && text_[at_] <= '9') {
    value = value * 10 + (text_[at_] - '0');
    if (value > INT32_MAX) fail("an integer beyond 2147483647");
    ++at_;
  }
  if (at_ == begin || (at_ < text_.size() && is_scalar(text_[at_]))) {
    fail("no integer, one of 0 to 2147483647 is needed");
  }
  return static_cast<std::int32_t>(value);
}

void JsonScan::skip_string() {
  ++at_;
  while (at_ < text_.size()) {
    const char c = text_[at_++];
    if (c == '"') return;
    if (c == '\\') ++at_;
  }
  fail("the end of the text inside a string");
}

void JsonScan::skip_scalar() {
  const std::size_t begin = at_;
  while (at_ < text_.size() && is_scalar(text_[at_])) ++at_;
  if (at_ == begin) fail("no value where one is needed");
}

std::string_view JsonScan::raw_value() {
  skip_space();
  const std::size_t begin = at_;
  int depth = 0;
  do {
    const char c = peek();
    if (c == '{' || c == '[') {
      if (++depth > kJsonDepthLimit) {
        fail(fmt::format("values nested deeper than {}", kJsonDepthLimit));
      }
      ++at_;
    } else if (c == '}' || c == ']') {
      if (--depth < 0) fail(fmt::format("'{}' where a value is needed", c));
      ++at_;
    } else if (depth > 0 && (c == ',' || c == ':')) {
      ++at_;
    } else if (c == '"') {
      skip_string();
    } else {
      skip_scalar();
    }
  } while (depth > 0);
  return text_.substr(begin, at_ - begin);
}

}  // namespace ds
