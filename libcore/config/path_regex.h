// Regular expressions from users' files, matched against module paths in bounded time.
#pragma once

#include <memory>
#include <string>
#include <string_view>

namespace ds {

// A compiled Perl-style expression (what PEFT's Python expressions use of it is the same in both).
class PathRegex {
 public:
  enum class Anchor {
    kWhole,  // Python's re.fullmatch
    kTail,   // PEFT's patterns: re.match of (.*\.)?(PATTERN)$
  };
  // Throws Error(kBadInput) naming `what` and the place of the mistake.
  PathRegex(const std::string& pattern, Anchor anchor, std::string what);
  ~PathRegex();
  PathRegex(PathRegex&&) noexcept;
  PathRegex& operator=(PathRegex&&) noexcept;

  // Throws Error(kBadInput) when the expression takes too many steps on this path.
  bool matches(std::string_view path) const;

 private:
  struct Compiled;
  std::unique_ptr<Compiled> compiled_;
  std::string what_;
};

}  // namespace ds
