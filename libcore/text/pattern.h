// Regular expressions of tokenizer.json: written for Oniguruma, matched with PCRE2.
#pragma once

#include <string>
#include <string_view>

namespace ds {

struct PatternText {
  std::string text;
  // Whether it asks for Unicode properties: then it must be matched against to_stable_text(), else
  // against the text itself.
  bool properties = false;
};

// The same expression for PCRE2 (8-bit, UTF and UCP, newline LF). Rewritten are: \s and \S (the
// White_Space property; PCRE2's own has U+180E), \w, \W, \d, \D, \v, \uHHHH, script properties (no
// script extensions), ^ and $ (every line), {,n}, character sets. Throws Error(kBadInput) that
// begins with `where` and names the construct for everything the two dialects read differently and
// that is not rewritten: \h \b \R \X \K \G, back references, POSIX brackets, nested sets and &&,
// {n,m}+, inline flags other than (?i:...), properties other than general categories and the common
// scripts, letter pairs that fold to one letter (ss, fi, ...) inside (?i:...).
PatternText to_pcre2_pattern(std::string_view pattern, const std::string& where);

}  // namespace ds
