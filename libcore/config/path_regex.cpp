#define PCRE2_CODE_UNIT_WIDTH 8
#include "libcore/config/path_regex.h"

#include <pcre2.h>

#include "libcore/base/error.h"
#include "libcore/base/format.h"

namespace ds {
namespace {

constexpr std::size_t kLongestPattern = std::size_t{64} << 10;
// A sensible expression needs a few hundred steps on a path of 60 characters.
constexpr std::uint32_t kMatchSteps = 20000;
constexpr std::uint32_t kHeapKib = 4096;

std::string reason(int code) {
  PCRE2_UCHAR text[256];
  pcre2_get_error_message(code, text, sizeof text);
  return reinterpret_cast<const char*>(text);
}

}  // namespace

struct PathRegex::Compiled {
  pcre2_code* code = nullptr;
  pcre2_match_data* data = nullptr;
  pcre2_match_context* context = nullptr;
  ~Compiled() {
    pcre2_match_context_free(context);
    pcre2_match_data_free(data);
    pcre2_code_free(code);
  }
};

PathRegex::PathRegex(const std::string& pattern, Anchor anchor, std::string what)
    : compiled_(std::make_unique<Compiled>()), what_(std::move(what)) {
  if (pattern.size() > kLongestPattern) {
    throw Error(ExitCode::kBadInput, what_ + ": the regular expression has " +
                                         std::to_string(pattern.size()) + " bytes, at most " +
                                         std::to_string(kLongestPattern) + " are read");
  }
  const std::size_t lead = anchor == Anchor::kTail ? 8 : 0;
  const std::string text = anchor == Anchor::kTail ? "(.*\\.)?(" + pattern + ")$" : pattern;
  std::uint32_t options = PCRE2_ANCHORED | PCRE2_UTF;
  if (anchor == Anchor::kWhole) options |= PCRE2_ENDANCHORED;
  int code = 0;
  PCRE2_SIZE place = 0;
  compiled_->code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), options,
                                  &code, &place, nullptr);
  if (compiled_->code == nullptr) {
    const std::size_t at = place > lead ? place - lead : 0;
    throw Error(ExitCode::kBadInput, what_ + ": " + quote_text(pattern, 80) +
                                         " is not a regular expression: character " +
                                         std::to_string(at) + ": " + reason(code));
  }
  compiled_->data = pcre2_match_data_create(1, nullptr);
  compiled_->context = pcre2_match_context_create(nullptr);
  if (compiled_->data == nullptr || compiled_->context == nullptr) throw std::bad_alloc();
  pcre2_set_match_limit(compiled_->context, kMatchSteps);
  pcre2_set_heap_limit(compiled_->context, kHeapKib);
}

PathRegex::~PathRegex() = default;
PathRegex::PathRegex(PathRegex&&) noexcept = default;
PathRegex& PathRegex::operator=(PathRegex&&) noexcept = default;

bool PathRegex::matches(std::string_view path) const {
  const int found = pcre2_match(compiled_->code, reinterpret_cast<PCRE2_SPTR>(path.data()),
                                path.size(), 0, 0, compiled_->data, compiled_->context);
  if (found >= 0) return true;
  if (found == PCRE2_ERROR_NOMATCH) return false;
  throw Error(ExitCode::kBadInput,
              what_ + ": the regular expression takes too many steps on '" + std::string(path) +
                  "': " + reason(found),
              "write it without nested repetitions");
}

}  // namespace ds
