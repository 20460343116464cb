// A forward scanner over JSON text for files whose bulk needs no document tree.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

namespace ds {

// Reads JSON values one after another. The text must be valid UTF-8 and outlive the scanner.
// Every function throws Error(kBadInput) "NAME: byte N: found, needed" for text that is no JSON.
class JsonScan {
 public:
  JsonScan(std::string_view text, std::string name) : text_(text), name_(std::move(name)) {}

  // The first byte of the next token, 0 at the end of the text.
  char peek() {
    skip_space();
    return at_ < text_.size() ? text_[at_] : '\0';
  }
  // Steps over `token`, which must come next.
  void expect(char token) {
    if (!consume(token)) fail_expected(token);
  }
  // Steps over `token` if it comes next.
  bool consume(char token) {
    if (peek() != token) return false;
    ++at_;
    return true;
  }
  // A string without its quotes and escapes. The view points into the text, or into `scratch` when
  // the string has escapes; lone surrogates become U+FFFD.
  std::string_view string(std::string& scratch);
  // An integer in 0..2^31-1.
  std::int32_t small_integer();
  // The text of the next value of any kind; nesting up to kJsonDepthLimit.
  std::string_view raw_value();
  std::size_t offset() const { return at_; }
  // Continues at an offset taken before.
  void seek(std::size_t offset) { at_ = offset; }
  std::string_view text() const { return text_; }
  const std::string& name() const { return name_; }
  [[noreturn]] void fail(const std::string& found_and_needed) const;

 private:
  static bool is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }
  void skip_space() {
    while (at_ < text_.size() && is_space(text_[at_])) ++at_;
  }
  [[noreturn]] void fail_expected(char token) const;
  void skip_string();
  void skip_scalar();
  std::string_view escaped_string(std::size_t begin, std::string& scratch);
  std::uint32_t hex4(std::size_t at) const;

  std::string_view text_;
  std::string name_;
  std::size_t at_ = 0;
};

}  // namespace ds
