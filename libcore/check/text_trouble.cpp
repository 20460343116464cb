#include "libcore/check/text_trouble.h"

#include <fmt/format.h>
#include <utf8proc.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <memory>
#include <optional>

namespace ds::check {
namespace {

struct Character {
  utf8proc_int32_t code_point = 0;
  std::size_t offset = 0;
  std::size_t length = 1;
};

// The character at a byte; code point 0 at the end.
Character character_at(std::string_view text, std::size_t offset) {
  Character c{.offset = offset};
  if (offset >= text.size()) return c;
  const auto* bytes = reinterpret_cast<const utf8proc_uint8_t*>(text.data()) + offset;
  const auto length =
      utf8proc_iterate(bytes, static_cast<utf8proc_ssize_t>(text.size() - offset), &c.code_point);
  if (length < 1) c.code_point = 0;
  c.length = length < 1 ? 1 : static_cast<std::size_t>(length);
  return c;
}

bool between(utf8proc_int32_t c, utf8proc_int32_t first, utf8proc_int32_t last) {
  return c >= first && c <= last;
}

bool is_letter(utf8proc_int32_t c) {
  const auto category = utf8proc_category(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

Script script_of(utf8proc_int32_t c) {
  if (c < 0x80) {
    return between(c, 'a', 'z') || between(c, 'A', 'Z') ? Script::kLatin : Script::kNone;
  }
  if (!is_letter(c)) return Script::kNone;
  if (c < 0x250 || between(c, 0x1e00, 0x1eff)) return Script::kLatin;
  if (between(c, 0x370, 0x3ff) || between(c, 0x1f00, 0x1fff)) return Script::kGreek;
  if (between(c, 0x400, 0x52f)) return Script::kCyrillic;
  if (between(c, 0x590, 0x5ff)) return Script::kHebrew;
  if (between(c, 0x600, 0x77f) || between(c, 0xfb50, 0xfeff)) return Script::kArabic;
  if (between(c, 0x900, 0xdff)) return Script::kIndic;
  if (between(c, 0xe00, 0xe7f)) return Script::kThai;
  if (between(c, 0x3040, 0x30ff)) return Script::kKana;
  if (between(c, 0x3400, 0x9fff) || between(c, 0xf900, 0xfaff) || between(c, 0x20000, 0x3ffff)) {
    return Script::kHan;
  }
  if (between(c, 0xac00, 0xd7ff) || between(c, 0x1100, 0x11ff)) return Script::kHangul;
  return Script::kOther;
}

struct Named {
  utf8proc_int32_t first;
  utf8proc_int32_t last;
  std::string_view name;
};
constexpr std::array kInvisible{Named{0x00ad, 0x00ad, "soft hyphen"},
                                Named{0x034f, 0x034f, "combining grapheme joiner"},
                                Named{0x115f, 0x1160, "Hangul filler"},
                                Named{0x180e, 0x180e, "Mongolian vowel separator"},
                                Named{0x200b, 0x200b, "zero width space"},
                                Named{0x2060, 0x2060, "word joiner"},
                                Named{0x2061, 0x2064, "invisible operator"},
                                Named{0x206a, 0x206f, "deprecated format character"},
                                Named{0x3164, 0x3164, "Hangul filler"},
                                Named{0xfff9, 0xfffb, "annotation character"}};

// Cyrillic letters that look like Latin ones.
constexpr std::u32string_view kLookAlikes =
    U"\u0430\u0435\u043e\u0440\u0441\u0443\u0445\u0455\u0456"
    U"\u0458\u0410\u0412\u0415\u041a\u041c\u041d\u041e"
    U"\u0420\u0421\u0422\u0425\u0405\u0406\u0408";

std::string named(utf8proc_int32_t c, std::string_view name = "") {
  return name.empty() ? fmt::format("U+{:04X}", c) : fmt::format("U+{:04X} ({})", c, name);
}

// UTF-8 that was read as Latin-1 or Windows-1252 and written again: U+00C2 or U+00C3 and a
// character of U+0080..U+00BF; a first byte of three and two such; typographic quotes; what GBK
// makes of U+FFFD.
bool is_mojibake(std::string_view text, std::size_t at, utf8proc_int32_t c) {
  const auto begins = [&](std::string_view part) {
    return text.compare(at, part.size(), part) == 0;
  };
  if (c == 0x951f) return begins("\u951f\u65a4\u62f7");
  if (!between(c, 0xc2, 0xef)) return false;
  if (begins("\u00e2\u20ac\u2122") || begins("\u00e2\u20ac\u0153")) return true;
  const Character second = character_at(text, at + 2);
  if (!between(second.code_point, 0x80, 0xbf)) return false;
  if (c <= 0xc3) return true;
  const Character third = character_at(text, second.offset + second.length);
  return c >= 0xe2 && between(third.code_point, 0x80, 0xbf);
}

// What normalisation to NFC would change: the first byte; npos: nothing.
std::size_t not_nfc(std::string_view text) {
  const auto has_candidate = [&] {
    for (std::size_t at = 0; at < text.size();) {
      const Character c = character_at(text, at);
      // Nothing below U+0300 composes with what stands before it or has another form.
      const bool plain =
          c.code_point < 0x300 || between(c.code_point, 0x2010, 0x2027) ||
          between(c.code_point, 0x3000, 0x3020) || between(c.code_point, 0x3041, 0x3096) ||
          between(c.code_point, 0xff01, 0xff60) || between(c.code_point, 0x3400, 0x9fff) ||
          between(c.code_point, 0xac00, 0xd7a3);
      if (!plain) return true;
      at += c.length;
    }
    return false;
  };
  if (!has_candidate()) return std::string_view::npos;
  utf8proc_uint8_t* made = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &made,
                   static_cast<utf8proc_option_t>(UTF8PROC_STABLE | UTF8PROC_COMPOSE));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(made, &std::free);
  if (length < 0) return std::string_view::npos;
  const std::string_view normal(reinterpret_cast<const char*>(made),
                                static_cast<std::size_t>(length));
  if (normal == text) return std::string_view::npos;
  const auto differ = std::mismatch(text.begin(), text.end(), normal.begin(), normal.end());
  return static_cast<std::size_t>(differ.first - text.begin());
}

class Scan {
 public:
  explicit Scan(std::string_view text) : text_(text) {}

  std::vector<TextTrouble> run() {
    if (std::all_of(text_.begin(), text_.end(), [](char c) {
          return (c >= 0x20 && c != 0x7f) || c == '\t' || c == '\n' || c == '\r';
        })) {
      return {};  // plain ASCII
    }
    for (std::size_t at = 0; at < text_.size();) {
      const Character c = character_at(text_, at);
      one(c);
      word(c);
      before_ = c.code_point;
      at += c.length;
    }
    end_word();
    if (const std::size_t at = not_nfc(text_); at != std::string_view::npos) {
      // The letter that the mark belongs to stands before it.
      found("not-normalised", at, "a character that NFC writes otherwise");
    }
    return std::move(troubles_);
  }

 private:
  void found(const char* rule, std::size_t offset, std::string what) {
    for (const TextTrouble& known : troubles_) {
      if (known.rule == rule) return;
    }
    troubles_.push_back({rule, offset, std::move(what)});
  }

  void one(const Character& c) {
    const auto p = c.code_point;
    if (p == 0xfffd) found("replacement-character", c.offset, named(p));
    if (p == 0xfeff) found("byte-order-mark", c.offset, named(p));
    if ((p < 0x20 && p != '\t' && p != '\n' && p != '\r') || between(p, 0x7f, 0x9f)) {
      // The second half of mojibake is told as such.
      if (!(p >= 0x80 && mojibake_until_ > c.offset))
        found("control-character", c.offset, named(p));
    }
    // Text that runs from right to left may embed and isolate; overrides are no one's need.
    const bool overrides = p == 0x202d || p == 0x202e;
    if (overrides || between(p, 0x202a, 0x202c) || between(p, 0x2066, 0x2069)) {
      if (overrides || !right_to_left()) found("bidi-control", c.offset, named(p));
    }
    if ((p == 0x200e || p == 0x200f) && !right_to_left()) {
      found("invisible-character", c.offset, named(p, "direction mark"));
    }
    for (const Named& range : kInvisible) {
      if (!between(p, range.first, range.last)) continue;
      if (p == 0xad && mojibake_until_ > c.offset) continue;
      found("invisible-character", c.offset, named(p, range.name));
    }
    const auto after = character_at(text_, c.offset + c.length).code_point;
    if (p == 0x200c || p == 0x200d) {  // needed in Persian, in Indic scripts and in emoji
      if (script_of(before_) == Script::kLatin || script_of(after) == Script::kLatin) {
        found("invisible-character", c.offset, named(p, "zero width joiner"));
      }
    }
    if (p >= 0xc2 && is_mojibake(text_, c.offset, p)) {
      mojibake_until_ = c.offset + 6;
      found("mojibake", c.offset, "UTF-8 that was read as Latin-1 or GBK");
    }
  }

  // Whether the text has Hebrew or Arabic letters.
  bool right_to_left() {
    if (!right_to_left_) {
      right_to_left_ = false;
      for (std::size_t at = 0; at < text_.size() && !*right_to_left_;) {
        const Character c = character_at(text_, at);
        const Script script = script_of(c.code_point);
        right_to_left_ = script == Script::kHebrew || script == Script::kArabic;
        at += c.length;
      }
    }
    return *right_to_left_;
  }

  // Words of Latin letters and Cyrillic ones that look like them.
  void word(const Character& c) {
    const Script script = script_of(c.code_point);
    if (script == Script::kNone) {
      end_word();
      return;
    }
    if (letters_ == 0) word_begin_ = c.offset;
    ++letters_;
    latin_ += script == Script::kLatin ? 1 : 0;
    if (script != Script::kCyrillic) return;
    const bool alike =
        kLookAlikes.find(static_cast<char32_t>(c.code_point)) != std::u32string_view::npos;
    (alike ? alike_ : other_) += 1;
    if (alike) sample_ = c.code_point;
  }
  void end_word() {
    if (latin_ > 0 && alike_ > 0 && other_ == 0 && letters_ > 2) {
      found("mixed-script-word", word_begin_,
            fmt::format("a word of Latin letters with the Cyrillic {}", named(sample_)));
    }
    letters_ = latin_ = alike_ = other_ = 0;
  }

  std::string_view text_;
  std::vector<TextTrouble> troubles_;
  utf8proc_int32_t before_ = 0;
  std::size_t mojibake_until_ = 0;
  std::optional<bool> right_to_left_;  // once it was asked for
  std::size_t word_begin_ = 0;
  int letters_ = 0;
  int latin_ = 0;
  int alike_ = 0;
  int other_ = 0;
  utf8proc_int32_t sample_ = 0;
};

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// Whether the ASCII punctuation at text[at] may be left out.
bool may_go(std::string_view text, std::size_t at) {
  const char c = text[at];
  if (std::string_view("()[]{}*/%#@&\\_").find(c) != std::string_view::npos) return false;
  const auto beside = [&](bool spaces) {
    std::size_t before = at;
    while (spaces && before > 0 && text[before - 1] == ' ') --before;
    std::size_t after = at + 1;
    while (spaces && after < text.size() && text[after] == ' ') ++after;
    return std::pair(before > 0 && is_digit(text[before - 1]),
                     after < text.size() && is_digit(text[after]));
  };
  if (c == '.' || c == ',' || c == ':') {
    const auto [before, after] = beside(false);
    return !(before && after);
  }
  if (c == '-') {
    const auto [before, after] = beside(true);
    return !before && !after;
  }
  if (c == '!') return !beside(false).first && text.substr(at, 2) != "!=";
  return true;
}

}  // namespace

std::vector<TextTrouble> text_troubles(std::string_view text) { return Scan(text).run(); }

std::string normal_text(std::string_view text) {
  std::string out;
  bool letters = false;
  for (std::size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    at += c.length;
    const auto p = c.code_point;
    const auto category = utf8proc_category(p);
    const bool space = (p >= 9 && p <= 13) || category == UTF8PROC_CATEGORY_ZS ||
                       category == UTF8PROC_CATEGORY_ZL || category == UTF8PROC_CATEGORY_ZP;
    const bool punctuation = category >= UTF8PROC_CATEGORY_PC && category <= UTF8PROC_CATEGORY_PO;
    if (space || (punctuation && (p >= 0x80 || may_go(text, c.offset)))) continue;
    letters = letters || !punctuation;
    std::array<utf8proc_uint8_t, 4> bytes{};
    const auto length = utf8proc_encode_char(utf8proc_tolower(p), bytes.data());
    out.append(reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(length));
  }
  return letters ? out : std::string(text);
}

std::string_view script_name(Script script) {
  constexpr std::array<std::string_view, kScripts> kNames{
      "no",    "Latin", "Greek", "Cyrillic", "Hebrew", "Arabic",
      "Indic", "Thai",  "Han",   "Japanese", "Korean", "another"};
  return kNames[static_cast<std::size_t>(script)];
}

Script main_script(std::string_view text) {
  std::array<std::size_t, kScripts> counts{};
  std::size_t letters = 0;
  for (std::size_t at = 0; at < text.size();) {
    const Character c = character_at(text, at);
    at += c.length;
    const Script script = script_of(c.code_point);
    if (script == Script::kNone) continue;
    ++counts[static_cast<std::size_t>(script)];
    ++letters;
  }
  constexpr std::size_t kEnough = 20;
  if (letters < kEnough) return Script::kNone;
  if (counts[static_cast<std::size_t>(Script::kKana)] * 10 > letters) return Script::kKana;
  const auto most = std::max_element(counts.begin(), counts.end());
  return static_cast<Script>(most - counts.begin());
}

}  // namespace ds::check
