#include "libcore/text/pattern.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <vector>

#include "libcore/base/error.h"
#include "libcore/base/utf8.h"
#include "libcore/text/unicode_version.h"

namespace ds {
namespace {

// White_Space of every Unicode version since 6.3, as items of a character set.
constexpr std::string_view kSpace =
    R"(\x{9}-\x{d}\x{20}\x{85}\x{a0}\x{1680}\x{2000}-\x{200a}\x{2028}\x{2029}\x{202f}\x{205f}\x{3000})";
// Oniguruma's \w inside a set; outside it has the superscripts and fractions of Latin-1, too.
constexpr std::string_view kWord = R"(\p{Alphabetic}\p{M}\p{Nd}\p{Pc})";
constexpr std::string_view kWordOutside = R"(\x{b2}\x{b3}\x{b9}\x{bc}-\x{be})";

constexpr std::array<std::string_view, 37> kCategories = {
    "L",  "Lu", "Ll", "Lt", "Lm", "Lo", "M",  "Mn", "Mc", "Me", "N",  "Nd", "Nl",
    "No", "P",  "Pc", "Pd", "Ps", "Pe", "Pi", "Pf", "Po", "S",  "Sm", "Sc", "Sk",
    "So", "Z",  "Zs", "Zl", "Zp", "C",  "Cc", "Cf", "Co", "Cn", "Any"};
constexpr std::array<std::string_view, 5> kScripts = {"Han", "Hiragana", "Katakana", "Hangul",
                                                      "Thai"};
// Letter pairs that Oniguruma folds to one letter.
constexpr std::array<std::string_view, 5> kFoldingPairs = {"ss", "ff", "fi", "fl", "st"};

template <std::size_t N>
bool has(const std::array<std::string_view, N>& names, std::string_view name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

class Rewriter {
 public:
  Rewriter(std::string_view pattern, const std::string& where) : in_(pattern), where_(where) {}

  PatternText run() {
    while (at_ < in_.size()) step();
    if (properties_ && !is_stable_set(ranges_)) {
      refuse(
          fmt::format("properties together with ranges that cut through code points newer than "
                      "Unicode {}",
                      kUnicodeVersion));
    }
    return {std::move(out_), properties_};
  }

 private:
  [[noreturn]] void refuse(std::string_view construct) const {
    throw Error(
        ExitCode::kBadInput,
        fmt::format("{}: {} at byte {} of the pattern is not supported", where_, construct, at_),
        "Only patterns that PCRE2 and Oniguruma read alike can be used.");
  }

  bool next_is(std::string_view text) const { return in_.substr(at_, text.size()) == text; }
  char peek(std::size_t ahead = 0) const {
    return at_ + ahead < in_.size() ? in_[at_ + ahead] : '\0';
  }

  // One element outside sets.
  void step() {
    const char c = in_[at_];
    switch (c) {
      case '\\':
        escape();
        return;
      case '[':
        set();
        return;
      case '(':
        group();
        return;
      case ')':
        if (!folding_.empty()) folding_.pop_back();
        break;
      case '{':
        interval();
        return;
      case '^':
        out_ += "(?m:^)";
        ++at_;
        return;
      case '$':
        out_ += "(?m:$)";
        ++at_;
        return;
      case '*':
      case '+':
      case '?':
      case '|':
      case '.':
        break;
      default:
        literal(read_literal());
        return;
    }
    last_letter_ = 0;
    out_ += c;
    ++at_;
  }

  bool folds() const { return !folding_.empty() && folding_.back(); }

  std::uint32_t read_literal() {
    const auto lead = static_cast<unsigned char>(in_[at_]);
    if (lead < 0x80) {
      ++at_;
      return lead;
    }
    const std::size_t length = lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4;
    std::uint32_t value = lead & (0xffu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
      value = value << 6 | (static_cast<unsigned char>(in_[at_ + i]) & 0x3fu);
    }
    at_ += length;
    return value;
  }

  static std::string code_point(std::uint32_t value) { return fmt::format("\\x{{{:x}}}", value); }

  void check_fold(std::uint32_t value) {
    if (!folds()) return;
    if (value >= 0x80) refuse("a non-ASCII letter without regard to case");
    const char letter = static_cast<char>(value | 0x20);
    const std::array<char, 2> pair = {last_letter_, letter};
    if (has(kFoldingPairs, std::string_view(pair.data(), 2))) {
      refuse(fmt::format("\"{}\" without regard to case", std::string_view(pair.data(), 2)));
    }
    last_letter_ = letter;
  }

  void literal(std::uint32_t value) {
    check_fold(value);
    if (value >= 0x80) ranges_.push_back({value, value});
    out_ += code_point(value);
  }

  void group() {
    constexpr std::array<std::string_view, 6> kPlain = {"(?:", "(?=", "(?!", "(?>", "(?<=", "(?<!"};
    last_letter_ = 0;
    if (next_is("(?i:")) {
      out_ += "(?i:";
      at_ += 4;
      folding_.push_back(true);
      return;
    }
    for (const std::string_view plain : kPlain) {
      if (!next_is(plain)) continue;
      out_ += plain;
      at_ += plain.size();
      folding_.push_back(folds());
      return;
    }
    if (peek(1) == '?' || peek(1) == '*') {
      refuse(fmt::format("the group {}", in_.substr(at_, 4)));
    }
    out_ += "(?:";  // nothing refers to groups
    ++at_;
    folding_.push_back(folds());
  }

  void interval() {
    std::size_t end = at_ + 1;
    while (end < in_.size() && (is_digit(in_[end]) || in_[end] == ',')) ++end;
    const std::string_view body = in_.substr(at_ + 1, end - at_ - 1);
    const bool closed = end < in_.size() && in_[end] == '}';
    const auto commas = std::count(body.begin(), body.end(), ',');
    if (!closed || commas > 1 || body.empty() || body == ",") {
      literal(read_literal());  // an ordinary brace in both
      return;
    }
    last_letter_ = 0;
    out_ += '{';
    if (body[0] == ',') out_ += '0';
    out_ += body;
    out_ += '}';
    at_ = end + 1;
    if (peek() == '+') refuse("'+' after {n,m}");
    if (peek() == '?' && commas == 0) refuse("'?' after {n}");
  }

  // \p{..} or \P{..} as PCRE2 has it.
  std::string property() {
    const bool negated = in_[at_ + 1] == 'P';
    const std::size_t close = in_.find('}', at_);
    if (peek(2) != '{' || close == std::string_view::npos) refuse("a property without braces");
    std::string_view name = in_.substr(at_ + 3, close - at_ - 3);
    const bool inverted = name.starts_with('^');
    if (inverted) name.remove_prefix(1);
    const bool script = has(kScripts, name);
    if (!script && !has(kCategories, name)) refuse(fmt::format("the property {}", name));
    at_ = close + 1;
    properties_ = true;
    return fmt::format("\\{}{{{}{}}}", negated != inverted ? 'P' : 'p', script ? "sc:" : "", name);
  }

  // \xHH, \x{H...} or \uHHHH after the letter; nullopt: none of them.
  std::optional<std::uint32_t> numeric_escape() {
    const char kind = in_[at_ + 1];
    std::size_t begin = at_ + 2;
    std::size_t end = begin;
    if (kind == 'x' && peek(2) == '{') {
      ++begin;
      end = in_.find('}', begin);
      if (end == std::string_view::npos) refuse("\\x{ without an end");
    } else if (kind == 'x' || kind == 'u') {
      end = std::min(begin + (kind == 'x' ? 2 : 4), in_.size());
    } else {
      return std::nullopt;
    }
    std::uint32_t value = 0;
    for (std::size_t i = begin; i < end; ++i) {
      const char c = in_[i];
      const bool hex = is_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
      if (!hex || value > 0x10ffff) refuse("a broken numeric escape");
      value =
          value * 16 + static_cast<std::uint32_t>(is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    const bool in_braces = kind == 'x' && peek(2) == '{';
    const bool complete = in_braces ? end > begin : end - begin == (kind == 'x' ? 2u : 4u);
    if (!complete || value > 0x10ffff || (value >= 0xd800 && value < 0xe000)) {
      refuse("a broken numeric escape");
    }
    if (kind == 'x' && !in_braces && value >= 0x80) refuse("\\xHH beyond ASCII");
    at_ = end + (in_braces ? 1 : 0);
    return value;
  }

  // The code point of an escape that means one; nullopt: it means a class or something else.
  std::optional<std::uint32_t> escaped_code_point() {
    if (at_ + 1 >= in_.size()) refuse("a backslash at the end");
    const char c = in_[at_ + 1];
    constexpr std::string_view kCodes = "tnrfvae";
    constexpr std::string_view kValues = "\t\n\r\f\v\a\x1b";
    if (const std::size_t known = kCodes.find(c); known != std::string_view::npos) {
      at_ += 2;
      return static_cast<std::uint32_t>(kValues[known]);
    }
    if (const auto value = numeric_escape()) return value;
    if (is_letter(c) || is_digit(c)) return std::nullopt;
    ++at_;
    return read_literal();
  }

  void escape() {
    if (const auto value = escaped_code_point()) {
      literal(*value);
      return;
    }
    last_letter_ = 0;
    const char c = in_[at_ + 1];
    switch (c) {
      case 's':
      case 'S':
        out_ += fmt::format("[{}{}]", c == 'S' ? "^" : "", kSpace);
        break;
      case 'w':
      case 'W':
        out_ += fmt::format("[{}{}{}]", c == 'W' ? "^" : "", kWord, kWordOutside);
        properties_ = true;
        break;
      case 'd':
      case 'D':
        out_ += c == 'd' ? R"(\p{Nd})" : R"(\P{Nd})";
        properties_ = true;
        break;
      case 'p':
      case 'P':
        out_ += property();
        return;
      case 'A':
      case 'z':
        out_ += {'\\', c};
        break;
      default:
        refuse(fmt::format("\\{}", c));
    }
    at_ += 2;
  }

  // A class escape inside a set.
  std::string set_class() {
    const char c = in_[at_ + 1];
    if (c == 'p' || c == 'P') return property();
    std::string items;
    switch (c) {
      case 's':
        items = kSpace;
        break;
      case 'S':
        items = R"(\P{White_Space})";
        break;
      case 'w':
        items = kWord;
        break;
      case 'd':
        items = R"(\p{Nd})";
        break;
      case 'D':
        items = R"(\P{Nd})";
        break;
      default:
        refuse(fmt::format("\\{} inside a set", c));
    }
    properties_ = properties_ || c == 'w' || c == 'd' || c == 'D';
    at_ += 2;
    return items;
  }

  std::optional<std::uint32_t> set_code_point() {
    if (next_is("[")) refuse(next_is("[:") ? "a POSIX bracket" : "a set inside a set");
    if (next_is("&&")) refuse("&& inside a set");
    if (peek() != '\\') return read_literal();
    if (peek(1) == 'b') {
      at_ += 2;
      return 8;
    }
    return escaped_code_point();
  }

  void set() {
    ++at_;
    last_letter_ = 0;
    std::string items = "[";
    if (peek() == '^') {
      items += '^';
      ++at_;
    }
    if (peek() == ']') refuse("']' at the start of a set");
    while (peek() != ']') {
      if (at_ >= in_.size()) refuse("a set without an end");
      const auto first = set_code_point();
      if (!first) {
        items += set_class();
        // A '-' beside a class is an ordinary one in Oniguruma; say so in the output.
        if (peek() == '-' && peek(1) != ']') {
          if (peek(1) == '[' || peek(1) == '\\') refuse("a range that begins with a class");
          items += R"(\x{2d})";
          ++at_;
        }
        continue;
      }
      std::uint32_t last = *first;
      if (peek() == '-' && peek(1) != ']' && peek(1) != '\0') {
        ++at_;
        const auto end = set_code_point();
        if (!end) refuse("a range that ends with a class");
        last = *end;
        if (last < *first) refuse("a range that runs backwards");
      }
      if (folds() && last >= 0x80) refuse("non-ASCII letters without regard to case");
      ranges_.push_back({*first, last});
      items += code_point(*first);
      if (last != *first) items += "-" + code_point(last);
    }
    ++at_;
    out_ += items + "]";
  }

  std::string_view in_;
  std::string where_;
  std::string out_;
  std::size_t at_ = 0;
  std::vector<bool> folding_;  // of each open group: without regard to case
  char last_letter_ = 0;
  bool properties_ = false;
  std::vector<CodePointRange> ranges_;
};

}  // namespace

PatternText to_pcre2_pattern(std::string_view pattern, const std::string& where) {
  if (utf8_error(pattern) != kUtf8Valid) {
    throw Error(ExitCode::kBadInput, where + ": the pattern is no UTF-8");
  }
  return Rewriter(pattern, where).run();
}

}  // namespace ds
