// Characters that a text should not have, and texts without what often differs by accident.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace ds::check {

struct TextTrouble {
  const char* rule = nullptr;  // the rule's name
  std::size_t offset = 0;      // in bytes
  std::string what;            // "U+200B (zero width space)", ...
};

// At most one trouble a rule, the first; `text` is valid UTF-8. Marks that a script needs are none:
// joiners in emoji and outside of Latin words, direction marks beside right-to-left letters.
std::vector<TextTrouble> text_troubles(std::string_view text);

// The text in lower case without white space and punctuation, so that rows that differ by nothing
// else become equal. What carries meaning in numbers, formulas and code stays: brackets, + * / = _,
// a sign or point beside digits. A text of nothing else is returned as it is.
std::string normal_text(std::string_view text);

enum class Script {
  kNone,
  kLatin,
  kGreek,
  kCyrillic,
  kHebrew,
  kArabic,
  kIndic,
  kThai,
  kHan,
  kKana,
  kHangul,
  kOther
};
inline constexpr std::size_t kScripts = 12;
std::string_view script_name(Script script);  // "Latin", ...
// Of most letters; kNone for fewer than 20. Japanese is kKana, though most of it may be Han.
Script main_script(std::string_view text);

}  // namespace ds::check
