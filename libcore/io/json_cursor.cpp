#include "libcore/io/json_cursor.h"

#include <cstring>

#include "libcore/base/format.h"
#include "libcore/base/utf8.h"
#include "libcore/io/json_fast.h"

namespace ds {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }

}  // namespace

void JsonCursor::fail(const std::string& reason) const { throw JsonSyntaxError(reason, offset()); }

const char* JsonCursor::kind() {
  skip_space();
  if (at_ >= end_) return "the end of the text";
  switch (*at_) {
    case '{':
      return "an object";
    case '[':
      return "an array";
    case '"':
      return "a string";
    case 't':
    case 'f':
      return "true or false";
    case 'n':
      return "null";
    default:
      return is_digit(*at_) || *at_ == '-' ? "a number" : nullptr;
  }
}

void JsonCursor::fail_at(char c) {
  const char* found = kind();
  fail("found " + (found != nullptr ? std::string(found) : quote_text({at_, 1})) + ", '" +
       std::string(1, c) + "' is needed");
}

void JsonCursor::expect_end() {
  skip_space();
  if (at_ != end_) fail("text after the end of the JSON value: " + quote_text({at_, 1}));
}

std::string_view JsonCursor::string(std::string& scratch) {
  expect('"');
  const char* first = at_;
  at_ += json_plain_prefix({at_, static_cast<std::size_t>(end_ - at_)});
  if (at_ < end_ && *at_ == '"') {
    const std::string_view text(first, static_cast<std::size_t>(at_ - first));
    ++at_;
    return text;
  }
  scratch.assign(first, static_cast<std::size_t>(at_ - first));
  for (;;) {
    if (at_ >= end_) fail("a string without its closing quote");
    const char c = *at_;
    if (c == '"') {
      ++at_;
      return scratch;
    }
    if (static_cast<unsigned char>(c) < 0x20) fail("a control character inside a string");
    ++at_;
    if (c == '\\') {
      escape(scratch);
    } else {
      scratch += c;
    }
  }
}

std::uint32_t JsonCursor::four_hex_digits() {
  if (end_ - at_ < 4) fail("\\u needs four hexadecimal digits");
  std::uint32_t value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = *at_;
    std::uint32_t digit = 0;
    if (is_digit(c)) {
      digit = static_cast<std::uint32_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      digit = static_cast<std::uint32_t>(c - 'a') + 10;
    } else if (c >= 'A' && c <= 'F') {
      digit = static_cast<std::uint32_t>(c - 'A') + 10;
    } else {
      fail("\\u needs four hexadecimal digits");
    }
    value = value * 16 + digit;
    ++at_;
  }
  return value;
}

void JsonCursor::escape(std::string& out) {
  if (at_ >= end_) fail("a string without its closing quote");
  switch (*at_++) {
    case '"':
      out += '"';
      return;
    case '\\':
      out += '\\';
      return;
    case '/':
      out += '/';
      return;
    case 'b':
      out += '\b';
      return;
    case 'f':
      out += '\f';
      return;
    case 'n':
      out += '\n';
      return;
    case 'r':
      out += '\r';
      return;
    case 't':
      out += '\t';
      return;
    case 'u':
      break;
    default:
      --at_;
      fail("an unknown escape in a string");
  }
  std::uint32_t value = four_hex_digits();
  if (value >= 0xdc00 && value <= 0xdfff) fail("a lone surrogate escape in a string");
  if (value >= 0xd800 && value <= 0xdbff) {
    if (end_ - at_ < 2 || at_[0] != '\\' || at_[1] != 'u') {
      fail("a lone surrogate escape in a string");
    }
    at_ += 2;
    const std::uint32_t second = four_hex_digits();
    if (second < 0xdc00 || second > 0xdfff) fail("a lone surrogate escape in a string");
    value = 0x10000 + ((value - 0xd800) << 10) + (second - 0xdc00);
  }
  append_utf8(out, value);
}

std::uint64_t JsonCursor::unsigned_integer() {
  skip_space();
  if (at_ >= end_ || !is_digit(*at_)) {
    if (at_ < end_ && *at_ == '-') fail("a negative number, a whole number from 0 is needed");
    const char* found = kind();
    fail("found " + (found != nullptr ? std::string(found) : quote_text({at_, 1})) +
         ", a whole number from 0 is needed");
  }
  const bool leading_zero = *at_ == '0';
  const char* first = at_;
  std::uint64_t value = 0;
  // Eighteen digits fit, whatever they are.
  const char* safe = end_ - at_ > 18 ? at_ + 18 : end_;
  for (; at_ < safe && is_digit(*at_); ++at_) {
    value = value * 10 + static_cast<std::uint64_t>(*at_ - '0');
  }
  for (; at_ < end_ && is_digit(*at_); ++at_) {
    if (__builtin_mul_overflow(value, std::uint64_t{10}, &value) ||
        __builtin_add_overflow(value, static_cast<std::uint64_t>(*at_ - '0'), &value)) {
      fail("a number does not fit 64 bits");
    }
  }
  if (leading_zero && at_ - first > 1) fail("a number with a leading zero");
  if (at_ < end_ && (*at_ == '.' || *at_ == 'e' || *at_ == 'E')) {
    fail("a number with a fraction or exponent, a whole number is needed");
  }
  return value;
}

void JsonCursor::literal(std::string_view word) {
  const auto left = static_cast<std::size_t>(end_ - at_);
  if (left < word.size() || std::memcmp(at_, word.data(), word.size()) != 0) {
    fail("no JSON value: " + quote_text({at_, left < 8 ? left : 8}));
  }
  at_ += word.size();
}

bool JsonCursor::take_null() {
  if (peek() != 'n') return false;
  literal("null");
  return true;
}

void JsonCursor::skip_number() {
  if (at_ < end_ && *at_ == '-') ++at_;
  const char* first = at_;
  const auto digits = [this] {
    const char* start = at_;
    while (at_ < end_ && is_digit(*at_)) ++at_;
    if (at_ == start) fail("a number without digits");
  };
  digits();
  if (*first == '0' && at_ - first > 1) fail("a number with a leading zero");
  if (at_ < end_ && *at_ == '.') {
    ++at_;
    digits();
  }
  if (at_ < end_ && (*at_ == 'e' || *at_ == 'E')) {
    ++at_;
    if (at_ < end_ && (*at_ == '+' || *at_ == '-')) ++at_;
    digits();
  }
}

void JsonCursor::skip_value(int depth) {
  std::string scratch;
  const char c = peek();
  if (c == '{' || c == '[') {
    if (depth <= 0) fail("nested too deep");
    ++at_;
    const char closing = c == '{' ? '}' : ']';
    if (take(closing)) return;
    do {
      if (c == '{') {
        string(scratch);
        expect(':');
      }
      skip_value(depth - 1);
    } while (take(','));
    expect(closing);
  } else if (c == '"') {
    string(scratch);
  } else if (c == 't') {
    literal("true");
  } else if (c == 'f') {
    literal("false");
  } else if (c == 'n') {
    literal("null");
  } else if (c == '-' || is_digit(c)) {
    skip_number();
  } else {
    fail(at_ < end_ ? "no JSON value: " + quote_text({at_, 1}) : "the text ends inside a value");
  }
}

}  // namespace ds
