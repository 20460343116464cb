// A JSON reader without a document: walks text that is known to be UTF-8 and hands out keys,
// strings and numbers in place. For the two formats with ten thousands of entries whose shape is
// fixed (safetensors headers, shard indices).
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <string>
#include <string_view>

namespace ds {

// What is wrong and at which byte of the text.
struct JsonSyntaxError : std::runtime_error {
  JsonSyntaxError(const std::string& reason, std::size_t offset)
      : std::runtime_error(reason), offset(offset) {}
  std::size_t offset;
};

// All functions skip white space first and throw JsonSyntaxError.
class JsonCursor {
 public:
  // `text` must outlive the cursor.
  explicit JsonCursor(std::string_view text)
      : begin_(text.data()), at_(text.data()), end_(text.data() + text.size()) {}

  std::size_t offset() const { return static_cast<std::size_t>(at_ - begin_); }
  // The next character without taking it; 0 at the end of the text.
  char peek() {
    skip_space();
    return at_ < end_ ? *at_ : '\0';
  }
  // Takes `c` when it is next.
  bool take(char c) {
    if (at_ >= end_ || *at_ != c) {
      skip_space();
      if (at_ >= end_ || *at_ != c) return false;
    }
    ++at_;
    return true;
  }
  void expect(char c) {
    if (!take(c)) fail_at(c);
  }
  void expect_end();
  // A string. The result lies in the text, or in `scratch` when the string has escapes.
  std::string_view string(std::string& scratch);
  // An integer of 0 .. 2^64-1; signs, fractions and exponents are refused.
  std::uint64_t unsigned_integer();
  // null, when it is next.
  bool take_null();
  // Any value, nested at most `depth` levels.
  void skip_value(int depth);
  [[noreturn]] void fail(const std::string& reason) const;
  // "a number", "an object", ...: what the next value is, for messages.
  const char* kind();

 private:
  void skip_space() {
    while (at_ < end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
  }
  [[noreturn]] void fail_at(char needed);
  void escape(std::string& out);
  std::uint32_t four_hex_digits();
  void skip_number();
  void literal(std::string_view word);
  const char* begin_;
  const char* at_;
  const char* end_;
};

}  // namespace ds
