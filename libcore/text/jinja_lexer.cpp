#include "libcore/text/jinja_lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "libcore/base/utf8.h"
#include "libcore/text/jinja_unicode.h"

namespace ds::jinja {
namespace {

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_name_start(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_name_part(char c) { return is_name_start(c) || is_digit(c); }

// \r\n and \r as \n; one line end at the end is not part of a template.
std::string with_plain_lines(std::string_view text) {
  std::string plain;
  plain.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      plain += '\n';
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
    } else {
      plain += text[i];
    }
  }
  if (plain.ends_with('\n')) plain.pop_back();
  return plain;
}

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(with_plain_lines(text)) {}

  std::vector<Token> run() {
    while (at_ < text_.size()) data();
    add(Token::Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  using Kind = Token::Kind;

  [[noreturn]] void fail(const std::string& what, JinjaProblem problem = JinjaProblem::kSyntax) {
    throw JinjaError(problem, line_, what);
  }
  void add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }
  bool ahead(std::string_view what) const { return text_.compare(at_, what.size(), what) == 0; }
  void advance(std::size_t count) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(at_ + count),
                                         '\n'));
    at_ += count;
  }
  void skip_space() {
    while (const std::size_t length = space_at(text_, at_)) advance(length);
  }
  // The end of a tag is behind us: what stood there decides whether the next text begins a line.
  void tag_ended() { line_starts_ = at_ > 0 && text_[at_ - 1] == '\n'; }

  // Text up to the next tag, then the tag.
  void data() {
    std::size_t open = at_;
    while (open + 1 < text_.size() &&
           !(text_[open] == '{' &&
             (text_[open + 1] == '%' || text_[open + 1] == '{' || text_[open + 1] == '#'))) {
      ++open;
    }
    if (open + 1 >= text_.size()) {
      add(Kind::kData, text_.substr(at_));
      advance(text_.size() - at_);
      return;
    }
    const char kind = text_[open + 1];
    const char sign = open + 2 < text_.size() ? text_[open + 2] : '\0';
    const bool signed_tag = sign == '-' || sign == '+';
    text_before(open, kind != '{', sign);
    advance(open + 2 + (signed_tag ? 1 : 0) - at_);
    if (kind == '#') {
      comment();
    } else if (kind == '%' && raw_begins()) {
      raw();
    } else {
      add(kind == '%' ? Kind::kBlockBegin : Kind::kPrintBegin, "");
      tag(kind == '%');
    }
    tag_ended();
  }

  // The text before a tag whose brace is at `open`.
  void text_before(std::size_t open, bool block, char sign) {
    std::string_view text = std::string_view(text_).substr(at_, open - at_);
    if (sign == '-') {
      text = right_stripped(text);
    } else if (sign != '+' && block) {
      const std::size_t line = text.rfind('\n') + 1;  // 0: no line end in it
      if ((line > 0 || line_starts_) && right_stripped(text.substr(line)).empty()) {
        text = text.substr(0, line);
      }
    }
    if (!text.empty()) add(Kind::kData, std::string(text));
  }

  // Behind a closing sign and delimiter of two characters at `at`; 0: they are not there.
  std::size_t after_close(std::string_view close, bool trims_line) {
    if (text_.compare(at_, close.size(), close) == 0) {
      std::size_t end = at_ + close.size();
      if (trims_line && end < text_.size() && text_[end] == '\n') ++end;
      return end;
    }
    if (at_ < text_.size() && (text_[at_] == '-' || (text_[at_] == '+' && trims_line)) &&
        text_.compare(at_ + 1, close.size(), close) == 0) {
      std::size_t end = at_ + 1 + close.size();
      if (text_[at_] == '-') {
        while (const std::size_t length = space_at(text_, end)) end += length;
      }
      return end;
    }
    return 0;
  }

  void comment() {
    for (;; advance(1)) {
      if (at_ >= text_.size()) fail("a comment has no end");
      if (const std::size_t end = after_close("#}", true); end > 0) {
        advance(end - at_);
        return;
      }
    }
  }

  // Whether the tag just opened is {% raw %}; if so, steps behind it.
  bool raw_begins() {
    const std::size_t start = at_;
    const int line = line_;
    skip_space();
    if (ahead("raw")) {
      advance(3);
      skip_space();
      if (ahead("-%}")) {
        advance(3);
        skip_space();
        return true;
      }
      if (ahead("%}")) {
        advance(2);
        return true;
      }
    }
    at_ = start;
    line_ = line;
    return false;
  }

  void raw() {
    tag_ended();
    for (std::size_t open = text_.find("{%", at_); open != std::string::npos;
         open = text_.find("{%", open + 1)) {
      std::size_t i = open + 2;
      const char sign = i < text_.size() ? text_[i] : '\0';
      if (sign == '-' || sign == '+') ++i;
      while (const std::size_t length = space_at(text_, i)) i += length;
      if (text_.compare(i, 6, "endraw") != 0) continue;
      i += 6;
      while (const std::size_t length = space_at(text_, i)) i += length;
      const std::size_t start = at_;
      at_ = i;
      const std::size_t end = after_close("%}", true);
      at_ = start;
      if (end == 0) continue;
      text_before(open, true, sign);
      advance(end - at_);
      return;
    }
    fail("a raw block has no endraw");
  }

  // The inside of a {% or {{ up to its end.
  void tag(bool block) {
    std::string open;  // brackets
    for (;;) {
      if (open.empty()) {
        if (const std::size_t end = after_close(block ? "%}" : "}}", block); end > 0) {
          add(block ? Kind::kBlockEnd : Kind::kPrintEnd, "");
          advance(end - at_);
          return;
        }
      }
      if (const std::size_t length = space_at(text_, at_); length > 0) {
        advance(length);
        continue;
      }
      if (at_ >= text_.size()) fail(block ? "a {% has no end" : "a {{ has no end");
      const char c = text_[at_];
      if (c == '\'' || c == '"') {
        string();
      } else if (is_digit(c)) {
        number();
      } else if (is_name_start(c)) {
        std::size_t end = at_;
        while (end < text_.size() && is_name_part(text_[end])) ++end;
        if (end < text_.size() && static_cast<unsigned char>(text_[end]) >= 0x80) foreign_letter();
        add(Kind::kName, text_.substr(at_, end - at_));
        advance(end - at_);
      } else if (static_cast<unsigned char>(c) >= 0x80) {
        foreign_letter();
      } else {
        punctuation(open);
      }
    }
  }

  [[noreturn]] void foreign_letter() {
    fail("a name with other letters than a-z", JinjaProblem::kUnsupported);
  }

  void punctuation(std::string& open) {
    static constexpr std::array<std::string_view, 26> kOperators{
        "**", "//", "==", "!=", ">=", "<=", "+", "-", "/", "*", "%", "~", "[",
        "]",  "(",  ")",  "{",  "}",  ">",  "<", "=", ".", ":", "|", ",", ";"};
    for (const std::string_view known : kOperators) {
      if (!ahead(known)) continue;
      const char c = known[0];
      if (c == '(' || c == '[' || c == '{') open += c;
      if (c == ')' || c == ']' || c == '}') {
        const char partner = c == ')' ? '(' : c == ']' ? '[' : '{';
        if (open.empty()) fail(fmt::format("unexpected '{}'", c));
        if (open.back() != partner) fail(fmt::format("'{}' closes a '{}'", c, open.back()));
        open.pop_back();
      }
      add(Kind::kOperator, std::string(known));
      advance(known.size());
      return;
    }
    fail(fmt::format("unexpected character '{}'", text_[at_]));
  }

  void number() {
    std::size_t end = at_;
    const auto digits = [&] {
      while (end < text_.size() &&
             (is_digit(text_[end]) || (text_[end] == '_' && end + 1 < text_.size() &&
                                       is_digit(text_[end + 1]) && is_digit(text_[end - 1])))) {
        ++end;
      }
    };
    if (text_[at_] == '0' && at_ + 1 < text_.size() &&
        std::string_view("bBoOxX").find(text_[at_ + 1]) != std::string_view::npos) {
      fail("a number that is not decimal", JinjaProblem::kUnsupported);
    }
    digits();
    bool real = false;
    if (end + 1 < text_.size() && text_[end] == '.' && is_digit(text_[end + 1])) {
      real = true;
      ++end;
      digits();
    }
    if (end < text_.size() && (text_[end] == 'e' || text_[end] == 'E')) {
      std::size_t exponent = end + 1;
      if (exponent < text_.size() && (text_[exponent] == '+' || text_[exponent] == '-')) {
        ++exponent;
      }
      if (exponent < text_.size() && is_digit(text_[exponent])) {
        real = true;
        end = exponent;
        digits();
      }
    }
    std::string text = text_.substr(at_, end - at_);
    std::erase(text, '_');
    if (!real && text.size() > 1 && text[0] == '0' &&
        text.find_first_not_of('0') != std::string::npos) {
      fail("a number with a leading 0", JinjaProblem::kUnsupported);
    }
    add(real ? Kind::kFloat : Kind::kInteger, std::move(text));
    advance(end - at_);
  }

  // Python's escapes; an unknown one keeps its backslash.
  void string() {
    const char quote = text_[at_];
    const int line = line_;
    std::string value;
    std::size_t i = at_ + 1;
    for (; i < text_.size() && text_[i] != quote; ++i) {
      if (text_[i] != '\\') {
        value += text_[i];
        continue;
      }
      if (++i >= text_.size()) break;
      constexpr std::string_view kLetters = "abfnrtv\\'\"";
      constexpr std::string_view kValues = "\a\b\f\n\r\t\v\\'\"";
      const char c = text_[i];
      if (const std::size_t known = kLetters.find(c); known != std::string_view::npos) {
        value += kValues[known];
      } else if (c == 'x' || c == 'u' || c == 'U') {
        i = hex(value, i, c == 'x' ? 2 : c == 'u' ? 4 : 8);
      } else if (c == 'N' || (c >= '0' && c <= '7')) {
        fail(fmt::format("the escape \\{} in a text", c), JinjaProblem::kUnsupported);
      } else if (c != '\n') {
        value += '\\';
        value += c;
      }
    }
    if (i >= text_.size()) fail("a text has no closing quote");
    advance(i + 1 - at_);
    tokens_.push_back({Kind::kString, std::move(value), line});
  }

  // The code point of `digits` hexadecimal digits behind text_[at]; returns the last digit's place.
  std::size_t hex(std::string& value, std::size_t at, std::size_t digits) {
    std::uint32_t code_point = 0;
    for (std::size_t k = 1; k <= digits; ++k) {
      const char c = at + k < text_.size() ? text_[at + k] : '\0';
      const int digit = is_digit(c)              ? c - '0'
                        : (c >= 'a' && c <= 'f') ? c - 'a' + 10
                        : (c >= 'A' && c <= 'F') ? c - 'A' + 10
                                                 : -1;
      if (digit < 0) fail("an escape has too few hexadecimal digits");
      code_point = code_point << 4 | static_cast<std::uint32_t>(digit);
    }
    if (code_point > 0x10ffff) fail("an escape beyond U+10FFFF");
    if (code_point >= 0xd800 && code_point <= 0xdfff) {
      fail("half of a surrogate pair in a text", JinjaProblem::kUnsupported);
    }
    append_utf8(value, code_point);
    return at + digits;
  }

  std::string text_;
  std::size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;
  std::vector<Token> tokens_;
};

}  // namespace

std::vector<Token> tokenize(std::string_view text) {
  if (utf8_error(text) != kUtf8Valid) throw JinjaError(JinjaProblem::kSyntax, 1, "no UTF-8");
  return Lexer(text).run();
}

}  // namespace ds::jinja
